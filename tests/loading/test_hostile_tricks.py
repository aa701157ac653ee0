"""Ways around a reader of pickles: names that are looked up elsewhere, objects built in parts, nested pickles."""

import io
import pickle
import struct
import zipfile

import pytest
import torch


def whole(asm, body):
    return asm.start + body + asm.stop


@pytest.mark.parametrize(
    "body, opcode",
    [
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\x00", "EXT2"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (b"(ios\nsystem\n", "INST"),
        (b"(cposix\nsystem\nX\x01\x00\x00\x00xo", "asks for 'posix.system'"),
        (b"))\x92", "NEWOBJ_EX"),
        (b"Pother\n", "PERSID"),
        (b"(1", "POP_MARK"),
        (b"\x95\x04\x00\x00\x00\x00\x00\x00\x00N.", "FRAME"),
        (b"\x97", "NEXT_BUFFER"),
        (b"\x96\x01\x00\x00\x00\x00\x00\x00\x00x", "BYTEARRAY8"),
        (b"\x8f", "EMPTY_SET"),
        (b"S'a'\n", "STRING"),
        (b"I1\n", "INT"),
        (b"L1L\n", "LONG"),
        (b"F1\n", "FLOAT"),
        (b"N\x94", "MEMOIZE"),
        (b"g1\n", "GET"),
    ],
)
def test_instructions_that_torch_does_not_write(refuse, asm, container, body, opcode):
    assert opcode in refuse(container(whole(asm, body)))


def test_extension_numbers_in_front_of_a_working_model(refuse, stock_bytes, repickle, asm):
    assert "EXT1" in refuse(repickle(stock_bytes, lambda old: asm.start + b"\x82\x01" + asm.pop + old[2:]))


@pytest.mark.parametrize(
    "identity, reason",
    [
        ("none", "outside data"),
        ("text", "outside data"),
        ("empty", "outside data"),
        ("name", "outside data"),
        ("short", "outside data"),
        ("kind", "unknown number type"),
        ("key", "impossible way"),
        ("number", "impossible way"),
        ("other", "outside data"),
        ("path", "is missing"),
    ],
)
def test_persistent_ids(refuse, asm, container, identity, reason):
    storage = asm.text("storage") + asm.name("torch", "FloatStorage")
    bodies = {
        "none": asm.none,
        "text": asm.text("storage"),
        "empty": asm.empty_tuple,
        "name": asm.name("torch", "FloatStorage"),
        "short": asm.mark + storage + asm.tuple,
        "kind": asm.mark + asm.text("storage") + asm.text("F") + asm.text("0") + asm.text("cpu") + asm.number(1),
        "key": asm.mark + storage + asm.empty_list + asm.text("cpu") + asm.number(1),
        "number": asm.mark + storage + asm.text("0") + asm.text("cpu") + asm.true,
        "other": asm.mark + asm.text("module") + asm.name("torch", "FloatStorage") + asm.text("") + asm.none,
        "path": asm.mark + storage + asm.text("../../etc/passwd") + asm.text("cpu") + asm.number(1),
    }
    body = bodies[identity] + (asm.tuple if identity in ("kind", "key", "number", "other", "path") else b"")
    assert reason in refuse(container(whole(asm, body + asm.persid), {"0": bytes(4)}))


def test_a_storage_as_the_target_of_everything(refuse, asm, container):
    storage = asm.storage("0", 1)
    for end in (asm.empty_dict + asm.build, asm.empty_tuple + asm.reduce, asm.empty_tuple + asm.new, asm.none + b"a"):
        refuse(container(whole(asm, storage + end), {"0": bytes(4)}))


@pytest.mark.parametrize(
    "state",
    ["slots", "list", "none", "name", "number keys"],
)
def test_states_of_modules_that_are_no_plain_dictionaries(refuse, asm, container, state):
    """BUILD with a pair calls setattr for the second part in Python's own unpickler."""
    filled = asm.empty_dict + asm.text("forward") + asm.none + asm.setitem
    states = {
        "slots": asm.none + filled + asm.tuple2,
        "list": asm.empty_list,
        "none": asm.none,
        "name": asm.name("torch", "FloatStorage"),
        "number keys": asm.empty_dict + asm.number(3) + asm.none + asm.setitem,
    }
    linear = asm.name("torch.nn.modules.linear", "Linear") + asm.empty_tuple + asm.new
    refuse(container(whole(asm, linear + states[state] + asm.build)))


def test_a_state_that_is_set_twice(refuse, asm, stock_bytes, repickle):
    """The second would replace what the first was judged by."""
    change = asm.empty_dict + asm.text("training") + asm.true + asm.setitem + asm.build
    assert "not a new module" in refuse(repickle(stock_bytes, lambda old: old[:-1] + change + asm.stop))


@pytest.mark.parametrize("target", ["class", "tensor", "tuple", "dictionary", "set"])
def test_attributes_of_what_is_no_module(refuse, asm, container, target):
    state = asm.empty_dict + asm.text("forward") + asm.none + asm.setitem
    targets = {
        "class": asm.name("torch.nn.modules.linear", "Linear"),
        "tensor": asm.tensor(asm.storage("0", 1), (1,), (1,)),
        "tuple": asm.empty_tuple,
        "dictionary": asm.empty_dict,
        "set": asm.call("builtins", "set", asm.empty_list),
    }
    assert "not a new module" in refuse(container(whole(asm, targets[target] + state + asm.build), {"0": bytes(4)}))


@pytest.mark.parametrize("name", ["__reduce__", "__setstate__", "__class__", "__dict__", "__getattr__", "_modules"])
def test_special_attributes(refuse, asm, stock_bytes, repickle, name):
    added = asm.text(name) + asm.none + asm.setitem
    message = refuse(repickle(stock_bytes, lambda old: old[:-2] + added + b"b."))
    assert "strange attribute" in message or "twice" in message


def test_calls_of_what_a_call_returned(refuse, asm, container):
    for module, name, *arguments in (
        ("torch.nn.backends.thnn", "_get_thnn_function_backend"),
        ("torch", "device", asm.text("cuda")),
        ("timm.layers.format", "Format", asm.text("NCHW")),
    ):
        call = asm.call(module, name, *arguments)
        assert "neither a whole model" in refuse(container(whole(asm, call)))
        message = refuse(container(whole(asm, call + asm.text("x") + asm.tuple1 + asm.reduce)))
        assert "asks" in message or "not a function" in message


@pytest.mark.parametrize(
    "module, name",
    [
        ("torch", "device"),
        ("timm.layers.format", "Format"),
        ("torch.nn.backends.thnn", "_get_thnn_function_backend"),
        ("collections", "OrderedDict"),
        ("builtins", "set"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
    ],
)
def test_known_constructors_with_other_arguments(refuse, asm, container, module, name):
    number = asm.number(7)
    for arguments in ((number, number), (asm.text("a"),) * 3 if name != "device" else (asm.none,), (number,) * 9):
        refuse(container(whole(asm, asm.call(module, name, *arguments))))
    assert "damaged" in refuse(container(whole(asm, asm.name(module, name) + asm.none + asm.reduce)))


def test_a_pickle_as_text_in_a_model(refuse, evil, stock):
    stock.note = pickle.dumps(evil()).decode("latin-1")
    assert "strange attribute 'note'" in refuse(stock)


def test_a_model_file_as_an_entry_of_a_model_file(refuse, stock_bytes, evil):
    inner = io.BytesIO()
    torch.save(evil(), inner)
    outer = io.BytesIO(stock_bytes)
    with zipfile.ZipFile(outer, "a") as archive:
        archive.writestr("archive/inner.pt", inner.getvalue())
    assert "entries that torch.save does not write" in refuse(outer.getvalue())


def test_a_second_pickle_behind_the_first(refuse, asm, evil, stock_bytes, repickle, sentinel):
    """Nothing reads it, here or in torch: the file is what its first pickle says."""
    from trojai_moth.loading import load_model

    path = sentinel.parent / "double.pt"
    path.write_bytes(repickle(stock_bytes, lambda old: old + pickle.dumps(evil(), 2)))
    assert load_model(path).attested and not sentinel.exists()


def test_tensors_that_share_numbers_are_separate_afterwards_or_refused(refuse, asm, container):
    """Overlap inside one tensor: two elements at one place, more elements than numbers."""
    for shape, stride in (((2, 2), (0, 1)), ((3, 2), (1, 1)), ((4,), (0,))):
        tensor = asm.tensor(asm.storage("0", 3), shape, stride)
        body = asm.empty_dict + asm.text("fc.weight") + tensor + asm.setitem
        refuse(container(whole(asm, body), {"0": bytes(12)}))


def test_a_zip_whose_directory_claims_more_than_the_file(refuse, stock_bytes):
    at = stock_bytes.index(b"PK\x01\x02") + 20
    huge = struct.pack("<2L", 0xFFFFFFF0, 0xFFFFFFF0)
    assert "damaged" in refuse(stock_bytes[:at] + huge + stock_bytes[at + 8 :])


@pytest.mark.parametrize(
    "name", ["archive/data/\n", "archive/data/\x1b[2J", "archive/data/[red]", "archive/data/" + "x" * 999]
)
def test_entries_with_strange_names(refuse, asm, container, name):
    buffer = io.BytesIO(container(whole(asm, asm.storage("0", 1)), {"0": bytes(4)}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"x")
    assert "neither" in refuse(buffer.getvalue())


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "[bold red]", "\u202e", "x" * 5000, ""])
def test_weights_with_strange_names(refuse, name):
    message = refuse({name: torch.zeros(2)})
    assert "\u202e" not in message
    refuse({name: torch.zeros(2)}, architecture="resnet18")
    refuse({name: 5})
