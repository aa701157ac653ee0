"""What fuzz.py runs on every input, and the small inputs it starts from; tests replay the kept inputs with these."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

Target = Callable[[bytes], None]
Instrument = Callable[..., AbstractContextManager[Any]]

# What an input of the target "model" is, by its first byte.
WHOLE_FILE, PICKLE_IN_A_ZIP, PICKLE_OF_A_MODEL = 0, 1, 2
_CLASSES = 5


def not_instrumented(**_: object) -> AbstractContextManager[Any]:
    """For replaying without the fuzzer."""
    return nullcontext()


def _model_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth.loading"]):
        from trojai_moth.core.errors import UnreadableModelError
        from trojai_moth.loading import inspect_model, load_model, tensors

    assert tensors  # else imported on the way, without the fuzzer's instruments
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.pt"

    def whole_file(data: bytes) -> None:
        path.write_bytes(data)
        try:
            load_model(path)
            refused = False
        except UnreadableModelError as error:
            # A cause would mean that no check foresaw this file.
            if error.__cause__ is not None or not str(error).isprintable():
                raise AssertionError(f"not a deliberate refusal: {error!r}") from error
            refused = True
        assert (inspect_model(path).verdict == "refused") is refused
        assert list(path.parent.iterdir()) == [path] and folder

    def target(data: bytes) -> None:
        kind, rest = data[:1], data[1:]
        if kind == bytes([PICKLE_OF_A_MODEL]):
            _structure(rest)
        elif kind == bytes([PICKLE_IN_A_ZIP]):
            whole_file(_zipped(rest))
        else:
            whole_file(rest)

    return target


def _structure(data: bytes) -> None:
    """Everything behind the container, with storages that are whatever the pickle says."""
    from trojai_moth.loading.architectures import build_skeleton
    from trojai_moth.loading.attestation import attest, attest_wrapper
    from trojai_moth.loading.examine import which_network
    from trojai_moth.loading.pickle_machine import run_pickle
    from trojai_moth.loading.refusal import Refusal
    from trojai_moth.loading.structure import find_weights
    from trojai_moth.loading.symbols import storage_claim

    def storage(identity: tuple[object, ...]) -> object:
        if len(identity) != 5:
            raise Refusal("strange")
        return storage_claim(identity[1], identity[2], identity[4])

    try:
        weights = find_weights(run_pickle(io.BytesIO(data), storage))
        if weights.wrapper is not None:
            attest_wrapper(weights.wrapper)
        skeleton = build_skeleton(which_network(weights))
        if weights.root is not None:
            attest(weights.root, skeleton)
    except Refusal as refusal:
        assert str(refusal).isprintable(), str(refusal)


def _zipped(pickle: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickle)
        archive.writestr("a/data/0", bytes(48))
        archive.writestr("a/data/1", bytes(12))
        archive.writestr("a/version", "3\n")
    return buffer.getvalue()


def _config_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth", "json"]):
        from trojai_moth.core.errors import MothError
        from trojai_moth.rounds.config_file import read_config

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "config.json"

    def target(data: bytes) -> None:
        path.write_bytes(data)
        try:
            config = read_config(path)
        except MothError as error:
            assert str(error).isprintable() and folder, str(error)
        else:
            # What is not there is None, and found out later; what is there makes sense.
            assert config.architecture is None or config.architecture
            assert all(n is None or n > 0 for n in (config.classes, config.stored_size, config.size))

    return target


def _metadata_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth", "csv"]):
        from trojai_moth.core.errors import MothError
        from trojai_moth.eval.labels import read_labels
        from trojai_moth.rounds.reading import read_round

    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name)
    model = root / "id-00000000"
    model.mkdir()

    def target(data: bytes) -> None:
        """Up to the first zero byte it is METADATA.csv, the rest a model's ground_truth.csv."""
        metadata, _, truth = data.partition(b"\0")
        (root / "METADATA.csv").write_bytes(metadata)
        (model / "ground_truth.csv").write_bytes(truth)
        for read in (read_round, read_labels):
            try:
                found = read(root)
            except MothError as error:
                assert str(error).isprintable() and folder, str(error)
            else:
                assert isinstance(found, (list, dict))

    return target


def _saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _pickle_of(value: object) -> bytes:
    with zipfile.ZipFile(io.BytesIO(_saved(value))) as archive:
        return archive.read("archive/data.pkl")


def _model_seeds() -> Iterator[bytes]:
    from trojai_moth.loading import build_architecture

    small = nn.Sequential(nn.Linear(4, 3)).eval()
    for value in (small, small.state_dict(), {"state_dict": small.state_dict(), "epoch": 1}, nn.DataParallel(small)):
        yield bytes([WHOLE_FILE]) + _saved(value)
        yield bytes([WHOLE_FILE]) + _saved(value, _use_new_zipfile_serialization=False)
        yield bytes([PICKLE_IN_A_ZIP]) + _pickle_of(value)
    yield bytes([WHOLE_FILE]) + save(small.state_dict(), {"a": "b"})
    stock = build_architecture("squeezenetv1_1", _CLASSES).eval()
    for value in (stock, stock.state_dict(), nn.DataParallel(stock)):
        yield bytes([PICKLE_OF_A_MODEL]) + _pickle_of(value)


def _config_seeds() -> Iterator[bytes]:
    keys = {"model_architecture": "resnet18", "number_classes": 5, "img_size_pixels": 72, "cnn_img_size_pixels": 64}
    yield json.dumps({"py/object": "round_config.RoundConfig", **keys}).encode()
    yield json.dumps({key.upper(): value for key, value in keys.items()}, indent=1).encode()
    yield json.dumps({"py/object": "x", "py/state": {**keys, "triggers": [{"target_class": 1}]}}).encode()


def _metadata_seeds() -> Iterator[bytes]:
    yield b"model_name,poisoned\nid-00000000,True\nid-00000001,False\n\x001\n"
    yield b'\xef\xbb\xbfmodel_name,"poisoned"\r\n"id-00000000",0\r\n\x000'
    yield b"model_name,poisoned,model_architecture\nid-00000000,,resnet18\n\x00"


TARGETS: dict[str, Callable[[Instrument], Target]] = {
    "config": _config_target,
    "metadata": _metadata_target,
    "model": _model_target,
}
SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "config": _config_seeds,
    "metadata": _metadata_seeds,
    "model": _model_seeds,
}
