"""What people change in a network of a library: its head and its first convolution."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from trojai_moth.loading.architectures import shapes_of
from trojai_moth.loading.heads import find_head, with_channels, with_head
from trojai_moth.loading.refusal import Refusal


def net(head, place="classifier", **first):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, "stride": 2} | first))
    return nn.Sequential(OrderedDict([("features", body), ("flat", nn.Flatten()), (place, head)]))


def dropout_and(*layers):
    return nn.Sequential(nn.Dropout(0.2), *layers)


LINEAR = nn.Linear(4, 3)
HEADS = {
    "the same": (dropout_and(LINEAR), "classifier.1", ""),
    "no sequence": (LINEAR, "classifier.1", "its head is classifier instead of classifier.1, by itself"),
    "two dropouts": (dropout_and(nn.Dropout(), LINEAR), "classifier.1", "its head is classifier.2 instead of"),
    "inside": (
        dropout_and(dropout_and(LINEAR)),
        "classifier.1",
        "its head is classifier.1.1 instead of classifier.1, behind",
    ),
    "no bias": (dropout_and(nn.Linear(4, 3, bias=False)), "classifier.1", "its head classifier.1 has no bias"),
    "both": (
        dropout_and(dropout_and(nn.Linear(4, 3, bias=False))),
        "classifier.1",
        "its head is classifier.1.1 instead of classifier.1, behind layers without weights, which were taken for "
        "dropout, and its head classifier.1.1 has no bias",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_heads(case):
    head, place, note = HEADS[case]
    written, stock = net(head).eval(), net(dropout_and(nn.Linear(4, 3))).eval()
    shapes = shapes_of(written)
    assert find_head(stock, shapes, place)[0] == next(
        n for n, it in written.named_modules() if isinstance(it, nn.Linear)
    )
    assert with_head(stock, place, shapes).startswith(note)
    stock.load_state_dict(written.state_dict())
    x = torch.rand(2, 3, 3, 3)
    assert torch.equal(stock(x), written(x))


def test_a_head_with_a_bias_where_the_library_has_none():
    written, stock = net(LINEAR), net(nn.Linear(4, 3, bias=False))
    assert with_head(stock, "classifier", shapes_of(written)) == "its head classifier has a bias"
    stock.load_state_dict(written.state_dict())


def test_a_head_that_is_a_convolution():
    written, stock = net(dropout_and(nn.Conv2d(4, 3, 1, bias=False))), net(dropout_and(nn.Conv2d(4, 3, 1)))
    assert "no bias" in with_head(stock, "classifier.1", shapes_of(written))
    stock.load_state_dict(written.state_dict())


@pytest.mark.parametrize("place", ["classifier", "classifier.1"])
def test_heads_of_several_layers(place):
    stock = net(dropout_and(LINEAR) if place[-1] == "1" else LINEAR)
    written = net(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 3)))
    if place[-1] == "1":
        with pytest.raises(Refusal, match=r"'classifier.0' and 'classifier.3'\), and weights do not show"):
            with_head(stock, place, shapes_of(written))
    else:
        with pytest.raises(Refusal, match="name a function that builds it, --architecture"):
            with_head(stock, place, shapes_of(written))


def test_hidden_layers_of_the_library_are_no_part_of_the_head():
    stock = net(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))
    written = net(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), dropout_and(nn.Linear(4, 3))))
    assert "classifier.2.1 instead of classifier.2" in with_head(stock, "classifier.2", shapes_of(written))
    stock.load_state_dict(written.state_dict())
    lacking = shapes_of(net(nn.Sequential(nn.Linear(4, 4))))
    assert with_head(stock, "classifier.2.1", lacking) == ""


def test_other_channels_keep_everything_else_of_the_first_convolution():
    options = {"padding": 1, "padding_mode": "reflect", "bias": False}
    stock, written = net(LINEAR, **options), net(LINEAR, in_channels=5, **options)
    shapes = shapes_of(written)
    assert "takes 5 channels instead of 3" in with_channels(stock, shapes, 5)
    stock.load_state_dict(written.state_dict())
    x = torch.rand(2, 5, 1, 1).expand(2, 5, 2, 2)
    assert torch.equal(stock(x), written(x))
    assert with_channels(stock, shapes) == ""
    with pytest.raises(Refusal, match="takes 5 input channels, but 3 are asked for"):
        with_channels(stock, shapes, 3)
