"""Which device and which cores a worker gets."""

import pytest
import torch

from trojai_moth.runs.workers import slots as module
from trojai_moth.runs.workers.slots import slots, workers_for

CPU = torch.device("cpu")


@pytest.fixture
def cores(monkeypatch):
    def have(count):
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        monkeypatch.setattr(module.torch, "get_num_threads", lambda: count)

    return have


def test_cores_and_threads_are_shared_out(cores):
    cores(8)
    found = slots(3, CPU)
    assert [slot.cores for slot in found] == [(0, 3, 6), (1, 4, 7), (2, 5)]
    assert {slot.threads for slot in found} == {2} and {slot.device for slot in found} == {CPU}


def test_more_workers_than_cores_have_one_each_in_turn(cores):
    cores(2)
    assert [(slot.cores, slot.threads) for slot in slots(3, CPU)] == [((0,), 1), ((1,), 1), ((0,), 1)]


def test_a_worker_per_gpu_unless_asked_otherwise(cores, monkeypatch):
    cores(4)
    cards = [torch.device("cuda", 0), torch.device("cuda", 1)]
    monkeypatch.setattr(module, "all_devices", lambda device: cards if device.index is None else [device])
    anywhere = torch.device("cuda")
    assert (workers_for(None, anywhere), workers_for(None, cards[1]), workers_for(5, anywhere)) == (2, 1, 5)
    assert [slot.device for slot in slots(4, anywhere)] == [*cards, *cards]
    assert {slot.device for slot in slots(2, cards[1])} == {cards[1]}


def test_without_a_gpu_one_process_does_it():
    assert workers_for(None, CPU) == 1
