"""Files that try to run code. Each payload would create the sentinel; ``refuse`` checks that it does not exist."""

import builtins
import io
import pickle
import runpy
import subprocess

import pytest
import torch

from trojai_moth.loading import load_model


def payload(asm, sentinel, module="os", name="system"):
    return asm.call(module, name, asm.text(f"touch {sentinel}"))


def test_the_payload_does_run_where_pickles_are_trusted(evil, sentinel):
    pickle.loads(pickle.dumps(evil()))
    assert sentinel.exists()


def test_shell_command_as_the_whole_file(refuse, evil):
    assert "asks for 'posix.system'" in refuse(evil())


def test_shell_command_in_a_deep_attribute(refuse, evil, stock):
    stock.features[3].squeeze.note = {"deep": [1, (evil(),)]}
    assert "posix.system" in refuse(stock)


def test_shell_command_in_the_metadata_of_a_state_dict(refuse, evil, stock):
    state = stock.state_dict()
    state._metadata["features"]["version"] = evil()
    assert "posix.system" in refuse(state)


def test_shell_command_beside_a_working_state_dict(refuse, evil, stock):
    assert "posix.system" in refuse({"state_dict": stock.state_dict(), "optimizer": evil()})


def test_executed_and_popped_before_a_working_model(refuse, asm, sentinel, stock_bytes, repickle):
    hostile = repickle(stock_bytes, lambda old: asm.start + payload(asm, sentinel) + asm.pop + old[2:])
    assert "os.system" in refuse(hostile)


def test_popping_is_unknown_even_without_a_call(refuse, asm, stock_bytes, repickle):
    assert "instruction POP" in refuse(repickle(stock_bytes, lambda old: asm.start + asm.none + asm.pop + old[2:]))


@pytest.mark.parametrize("module", ["builtins", "__builtin__"])
@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__"])
def test_builtins_under_new_and_old_names(refuse, asm, container, sentinel, module, name):
    text = asm.text(f"open({str(sentinel)!r}, 'w')")
    assert f"{module}.{name}" in refuse(container(asm.start + asm.call(module, name, text) + asm.stop))


def test_pickle_in_a_pickle(refuse, evil):
    assert "loads" in refuse(evil(pickle.loads, pickle.dumps(evil())))


def test_torch_file_in_a_pickle(refuse, evil):
    inner = io.BytesIO()
    torch.save(evil(), inner)
    assert "_load_from_bytes" in refuse(evil(torch.storage._load_from_bytes, inner.getvalue()))
    assert "load" in refuse(evil(torch.load, inner))


@pytest.mark.parametrize(
    "function, arguments",
    [
        (torch.hub._load_local, (".", "entry")),
        (runpy.run_path, ("code.py",)),
        (subprocess.call, (["touch", "x"],)),
        (builtins.getattr, ("text", "format")),
        (runpy.run_module, ("x",)),
    ],
)
def test_functions_that_lead_to_code(refuse, evil, function, arguments):
    assert f"{function.__name__}'" in refuse(evil(function, *arguments))


@pytest.mark.parametrize("name", ["resnet.torch.hub.load", "torch.serialization.os.system"])
def test_dotted_names(refuse, asm, container, sentinel, name):
    assert name in refuse(container(asm.start + payload(asm, sentinel, "torchvision.models.resnet", name) + asm.stop))


@pytest.mark.parametrize("module", ["torchvision.models.resnet", "torch.nn.modules.module"])
def test_functions_inside_the_homes_of_modules_are_not_called(refuse, asm, container, sentinel, module):
    assert "asks to call" in refuse(container(asm.start + payload(asm, sentinel, module, "load") + asm.stop))


def test_stack_global_of_protocol_4(refuse, asm, container, sentinel):
    name = asm.text("torchvision.models.resnet") + asm.text("torch.serialization.os.system") + b"\x93"
    body = name + asm.text(f"touch {sentinel}") + asm.tuple1 + asm.reduce + asm.stop
    assert "STACK_GLOBAL" in refuse(container(asm.start + body))
    assert "protocol 4" in refuse(container(b"\x80\x04" + body)).replace("'", "")


@pytest.mark.parametrize(
    "body, opcode",
    [
        (b"(X\x01\x00\x00\x00xios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nX\x01\x00\x00\x00xo.", "asks for 'os.system'"),
        (b"\x82\x01.", "EXT1"),
        (b"P1\n.", "PERSID"),
        (b"N2.", "DUP"),
    ],
)
def test_other_instructions(refuse, asm, container, body, opcode):
    assert opcode in refuse(container(asm.start + body))


def test_an_innocent_old_file_is_refused_for_its_content_only(refuse, old_file):
    assert "neither a whole model" in refuse(old_file())


@pytest.mark.parametrize("part", ["magic", "version", "system", "root", "keys"])
def test_code_in_each_pickle_of_the_old_container(refuse, asm, old_file, sentinel, part):
    message = refuse(old_file(**{part: payload(asm, sentinel)}))
    assert ("not a file that torch.save wrote" if part == "magic" else "os.system") in message


def test_code_as_a_persistent_id_of_the_old_container(refuse, asm, old_file):
    module = asm.mark + asm.text("module") + asm.name("os", "system") + asm.text("f") + asm.text("s") + asm.tuple
    assert "os.system" in refuse(old_file(root=module + asm.persid))
    unknown = asm.text("module") + asm.tuple1 + asm.persid
    assert "outside data" in refuse(old_file(root=unknown))


@pytest.mark.parametrize("name", ["os.system('true')", "__reduce__", "resnet18\n", "\x1b[2Jresnet18"])
def test_code_in_the_configuration_is_only_text(refuse, stock_bytes, name):
    assert "its configuration or --architecture says" in refuse(stock_bytes, architecture=name)


def test_control_characters_of_a_file_do_not_reach_the_terminal(refuse, asm, container):
    assert "\\x1b" in refuse(container(asm.start + asm.call("os\x1b[2J", "system") + asm.stop))


def test_a_control_file_loads(tmp_path, stock_bytes, repickle):
    path = tmp_path / "model.pt"
    path.write_bytes(repickle(stock_bytes, lambda old: old))
    assert load_model(path).attested
