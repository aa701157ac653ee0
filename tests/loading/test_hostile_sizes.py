"""Files that promise, hide or repeat more than they hold; each must be refused quickly and in little memory."""

import io
import zipfile

import pytest
import torch
from torch import nn

from trojai_moth.loading import load_model

HUGE = 1 << 36


def head_claim(asm, container, tensor, storages, name="classifier.1.weight"):
    return container(asm.start + asm.empty_dict + asm.text(name) + tensor + asm.setitem + asm.stop, storages)


@pytest.mark.parametrize(
    "shape, stride, offset",
    [
        ((HUGE, 512, 1, 1), (0, 0, 0, 0), 0),
        ((HUGE,), (1,), 0),
        ((2, 2), (3, 1), 0),
        ((4,), (1,), 1),
        ((2,), (-1,), 1),
        ((-4,), (1,), 0),
        ((1,), (1,), -1),
        ((1,), (1,), HUGE),
        ((2,), (1, 1), 0),
        ((1,) * 9, (1,) * 9, 0),
        ((1 << 70,), (0,), 0),
    ],
)
def test_tensors_that_do_not_fit_into_their_storage(refuse, asm, container, shape, stride, offset):
    tensor = asm.tensor(asm.storage("0", 4), shape, stride, offset)
    assert "tensor" in refuse(head_claim(asm, container, tensor, {"0": bytes(16)}))


@pytest.mark.parametrize("numel", [3, 5, HUGE, -1, 1 << 70])
def test_storages_that_are_not_as_long_as_claimed(refuse, asm, container, numel):
    tensor = asm.tensor(asm.storage("0", numel), (1,), (1,))
    assert "storage" in refuse(head_claim(asm, container, tensor, {"0": bytes(16)}))


def test_storages_that_are_missing_or_of_unknown_type_or_described_twice(refuse, asm, container):
    missing = asm.tensor(asm.storage("1", 4), (1,), (1,))
    assert "missing" in refuse(head_claim(asm, container, missing, {"0": bytes(16)}))
    unknown = asm.tensor(asm.storage("0", 4, "QUInt8Storage"), (1,), (1,))
    assert "QUInt8Storage" in refuse(head_claim(asm, container, unknown, {"0": bytes(16)}))
    twice = asm.tensor(asm.storage("0", 4), (1,), (1,)) + asm.tensor(asm.storage("0", 2, "LongStorage"), (1,), (1,))
    assert "two ways" in refuse(container(asm.start + twice + asm.tuple2 + asm.stop, {"0": bytes(16)}))


@pytest.mark.parametrize("build", ["reduce", "new"])
def test_constructors_with_large_arguments(refuse, asm, container, build):
    call = asm.name("torch.nn.modules.linear", "Linear") + asm.numbers((60000, 60000)) + getattr(asm, build)
    message = refuse(container(asm.start + call + asm.stop))
    assert "asks to call" in message or "not a plain module" in message


def test_compressed_zip(refuse, asm, container):
    bomb = container(asm.start + asm.none + asm.stop, {"0": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    assert "compressed" in refuse(bomb)


def test_zip_entries_that_share_their_bytes(refuse, stock_bytes):
    # Point the directory's last entry at the first one's header.
    with zipfile.ZipFile(io.BytesIO(stock_bytes)) as archive:
        last = archive.infolist()[-1].filename.encode()
    at = stock_bytes.rindex(last) - 4
    assert "damaged" in refuse(stock_bytes[:at] + bytes(4) + stock_bytes[at + 4 :])


def test_zip_with_very_many_entries(refuse):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"archive/data/{number}", b"")
    assert "20000 entries" in refuse(buffer.getvalue())


def test_sparse_file(refuse, tmp_path):
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert f"{1 << 40} bytes" in refuse(path)


def test_endless_pickle(refuse, asm, container):
    assert "instructions" in refuse(container(asm.start + asm.none * 1_000_000 + asm.stop))


def test_very_long_pickle(refuse, asm, container):
    assert "pickle of" in refuse(container(asm.start + asm.text("x" * (40 << 20)) + asm.stop))


def test_very_long_number(refuse, asm, container):
    number = b"\x8b" + (1 << 20).to_bytes(4, "little") + b"\x7f" * (1 << 20)
    assert "LONG4" in refuse(container(asm.start + number + asm.stop))
    assert "long integer" in refuse(container(asm.start + b"\x8a\xff" + b"\x7f" * 255 + asm.stop))


@pytest.mark.parametrize("text", [b"X\xff\xff\xff\xffabc", b"X\x01\x00\x00\x00\xff", b"cos"])
def test_arguments_that_can_not_be_decoded(refuse, asm, container, text):
    assert "pickle" in refuse(container(asm.start + text + asm.stop))


def test_modules_that_contain_themselves(refuse, stock):
    stock.features._modules["again"] = stock
    assert "endlessly" in refuse(stock)


def test_one_module_in_two_places(refuse, stock):
    stock.features[4] = stock.features[3]
    assert "uses one twice" in refuse(stock)


def test_very_deep_modules(refuse):
    model = nn.Identity()
    for _ in range(60):
        model = nn.Sequential(model)
    assert "endlessly" in refuse(model.eval())


@pytest.mark.parametrize("step", [b"\x85", b"\x86"])
@pytest.mark.parametrize("place", ["root", "key", "state", "attribute"])
def test_very_deep_tuples(refuse, asm, container, stock_bytes, repickle, step, place):
    tower = asm.none + (step if step == b"\x85" else asm.none + step) * 100_000
    if place == "attribute":
        added = asm.text("num_classes_too") + tower + asm.setitem
        assert "strange attribute" in refuse(repickle(stock_bytes, lambda old: old[:-2] + added + b"b."))
        return
    whole = {
        "root": tower,
        "key": asm.empty_dict + tower + asm.none + asm.setitem,
        "state": asm.name("torch.nn.modules.linear", "Linear") + asm.empty_tuple + asm.new + tower + asm.build,
    }
    refuse(container(asm.start + whole[place] + asm.stop))


def test_values_that_contain_themselves(refuse, asm, container):
    loop = asm.empty_list + asm.put(0) + asm.get(0) + asm.append
    assert "neither" in refuse(container(asm.start + loop + asm.stop))
    loop = asm.empty_dict + asm.put(0) + asm.text("state_dict") + asm.get(0) + asm.setitem
    assert "not a tensor" in refuse(container(asm.start + loop + asm.stop))


def test_doubling_by_reference(refuse, asm, container):
    levels = [asm.empty_list + asm.put(0)]
    for level in range(1, 60):
        refer = asm.get(level - 1)
        levels.append(asm.empty_list + asm.put(level) + refer + asm.append + refer + asm.append)
    stacked = b"".join(levels) + asm.mark
    assert "damaged" in refuse(container(asm.start + stacked + asm.tuple + asm.stop))
    assert "neither" in refuse(container(asm.start + asm.mark + b"".join(levels) + asm.tuple + asm.stop))


@pytest.mark.parametrize("call", ["set", "shape", "build"])
def test_one_long_value_mentioned_very_often(refuse, asm, container, call):
    """Each instruction must take constant time however long the value is that it refers to."""
    count = 50_000
    items = asm.mark + asm.number(1) * count
    pairs = asm.mark + b"".join(asm.number(number) + asm.none for number in range(count))
    linear = asm.name("torch.nn.modules.linear", "Linear")
    once, each = {
        "set": (asm.empty_list + items + b"e", asm.call("__builtin__", "set", asm.get(0))),
        "shape": (items + asm.tuple, asm.storage("0", 4) + asm.get(0) + asm.tuple2),
        "build": (asm.empty_dict + pairs + b"u", linear + asm.empty_tuple + asm.new + asm.get(0) + asm.build),
    }[call]
    body = asm.mark + once + asm.put(0) + each * (count // 2) + asm.tuple
    refuse(container(asm.start + body + asm.stop, {"0": bytes(16)}))


def test_a_large_storage_behind_every_weight_is_read_once(tmp_path, stock):
    large = torch.zeros(4_000_000)
    state, at = {}, 0
    for name, value in stock.state_dict().items():
        state[name] = large[at : at + value.numel()].view(value.shape)
        at = (at + value.numel()) % 3_000_000
    path = tmp_path / "model.pt"
    torch.save(state, path)
    module = load_model(path).module
    held = sum(value.untyped_storage().nbytes() for value in module.state_dict().values())
    assert held == sum(4 * value.numel() for value in state.values())
