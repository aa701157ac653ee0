"""What a worker says reaches its driver's log, in a form that every process understands."""

import logging
import multiprocessing
import pickle
import threading

import pytest

from trojai_moth.core.messages import configured, debugging
from trojai_moth.runs.run import ModelStep
from trojai_moth.runs.workers.worker import Inherited, _Driver, log_here

LOG = logging.getLogger("trojai_moth.somewhere")
DEBUG = Inherited(overtime=30.0, trust=False, architectures=frozenset(), level=logging.INFO, debug=True)


class Stubborn(Exception):
    """Cannot be sent to another process."""

    def __init__(self):
        super().__init__("by\x1b[2J a lock")
        self.lock = threading.Lock()


def test_a_message_with_its_traceback_is_sent_as_texts_and_shown_by_the_driver(capsys):
    sent = []
    with DEBUG.in_force(sent.append):
        assert debugging()
        try:
            raise Stubborn
        except Stubborn as error:
            LOG.info("model %s", "a", exc_info=error, extra={"model": "id-00000000"})
        LOG.debug("not asked for")
    assert not debugging() and capsys.readouterr().err == ""
    (record,) = pickle.loads(pickle.dumps(sent))
    assert (record.getMessage(), record.model, record.name) == ("model a", "id-00000000", LOG.name)
    with configured(logging.INFO):
        log_here(record)
    first, second, *_, last = capsys.readouterr().err.splitlines()
    assert (
        first.endswith(" model a") and second.startswith("Traceback") and last.endswith(r"Stubborn: by\x1b[2J a lock")
    )


def test_a_driver_that_is_gone_ends_the_worker_whatever_it_is_told():
    here, there = multiprocessing.Pipe()
    driver = _Driver(here)
    there.close()
    with DEBUG.in_force(driver.tell), pytest.raises(KeyboardInterrupt):
        LOG.info("is anybody there?")
    with pytest.raises(KeyboardInterrupt):
        driver.step("scan before")


def test_signs_of_life_are_passed_on_once_a_second_and_keep_what_they_say_of_the_model():
    here, there = multiprocessing.Pipe()
    driver, step = _Driver(here), ModelStep.of("id-00000002", 3, 8, "scan before")
    for _ in range(3):
        driver.step(step)
    got = there.recv()
    assert got == "[3/8] id-00000002: scan before" and not there.poll()
    assert (got.model_id, got.number, got.total, got.words) == ("id-00000002", 3, 8, "scan before")
