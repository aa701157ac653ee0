"""Models that are not what their weights suggest, or not what their round says."""

import io

import pytest
import torch
from torch import nn

from trojai_moth.loading import build_architecture


def hide(model, name, value):
    """Set an attribute as BUILD does, past nn.Module's own bookkeeping."""
    model.__dict__[name] = value


@pytest.mark.parametrize("name", ["forward", "state_dict", "parameters", "__call__", "_call_impl", "to", "children"])
def test_attributes_that_hide_a_method(refuse, stock, name):
    hide(stock, name, nn.Identity())
    assert f"strange attribute '{name}'" in refuse(stock)


def test_attributes_that_hide_a_method_of_an_inner_layer(refuse, stock):
    hide(stock.features[3].expand1x1, "forward", nn.Identity())
    assert "features.3.expand1x1" in refuse(stock)


def test_compiled_call(refuse, asm, stock_bytes, repickle):
    # nn.Module drops this attribute when it is saved, so it is written into the pickle's last dictionary.
    def change(old):
        added = asm.text("_compiled_call_impl") + asm.true + asm.setitem
        assert old.endswith(b"b.")
        return old[:-2] + added + b"b."

    assert "_compiled_call_impl" in refuse(repickle(stock_bytes, change))


def test_submodules_that_hide_a_method(refuse, stock):
    stock._modules["forward"] = nn.ReLU()
    assert "other modules" in refuse(stock)


@pytest.mark.parametrize("kind", ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks"])
def test_hooks(refuse, stock, kind):
    getattr(stock.features[0], kind)[0] = nn.ReLU()
    assert kind in refuse(stock)


@pytest.mark.parametrize(
    "layer, name, value",
    [
        ("features.0", "stride", (1, 1)),
        ("features.0", "padding_mode", "circular"),
        ("features.3.expand3x3", "padding", (0, 0)),
        ("features.3.expand3x3", "dilation", (2, 2)),
        ("features.2", "ceil_mode", False),
        ("features.1", "inplace", False),
        ("classifier.0", "p", 0.9),
        ("", "num_classes", 6),
    ],
)
def test_changed_settings(refuse, stock, layer, name, value):
    setattr(stock.get_submodule(layer), name, value)
    assert f"{name} = " in refuse(stock)


def test_changed_momentum_and_epsilon(refuse):
    model = build_architecture("resnet18", 3).eval()
    model.bn1.eps = 0.1
    assert "eps = '0.1' instead of 1e-05" in refuse(model)


def test_missing_settings(refuse, stock):
    del stock.features[0].stride
    assert "lacks stride" in refuse(stock)


def test_another_activation(refuse, stock):
    stock.features[1] = nn.LeakyReLU()
    assert "LeakyReLU" in refuse(stock.eval())


def test_another_order_of_layers(refuse, stock):
    layers = list(stock.features._modules.items())
    layers[1], layers[2] = layers[2], layers[1]
    stock.features._modules.clear()
    stock.features._modules.update(layers)
    assert "other modules" in refuse(stock)


def test_an_extra_layer_without_weights(refuse, stock):
    stock.features.append(nn.Hardtanh())
    assert "other modules" in refuse(stock.eval())


def test_a_removed_layer_without_weights(refuse, stock):
    del stock.features[-1].expand1x1_activation
    assert "other modules" in refuse(stock)


def test_training_mode(refuse, stock):
    stock.classifier[0].train()
    assert "model.eval()" in refuse(stock)


def test_a_class_from_elsewhere(refuse, stock):
    # torch.save insists on finding the class, so an installed one outside the known homes stands in.
    stock.features[1] = torch.ao.nn.quantized.FloatFunctional()
    assert "torch.ao.nn.quantized" in refuse(stock)


def test_a_class_with_the_right_weights_and_another_forward(refuse, stock_bytes, repickle):
    def change(old):
        return old.replace(b"ctorchvision.models.squeezenet\nSqueezeNet\n", b"ctorchvision.models.resnet\nResNet\n", 1)

    assert "is a 'torchvision.models.resnet.ResNet'" in refuse(repickle(stock_bytes, change))


def test_unknown_architectures(refuse):
    assert "not an architecture this tool knows" in refuse(nn.Sequential(nn.Linear(4, 3)).eval())
    message = refuse({"fc.weight": torch.zeros(3, 4)}, architecture="resnet18")
    assert "does not fit the architecture 'resnet18': 'fc.weight' is (3, 4) instead of (3, 512)" in message


@pytest.mark.filterwarnings("ignore")
def test_torchscript(refuse, stock):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(stock, torch.zeros(1, 3, 64, 64)), buffer)
    assert "TorchScript" in refuse(buffer.getvalue())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(refuse, stock, value):
    with torch.no_grad():
        stock.classifier[1].weight[2, 5] = value
    assert "in classifier.1.weight" in refuse(stock)


@pytest.mark.parametrize("dtype", [torch.float64])
def test_weights_of_another_type(refuse, stock, dtype):
    assert "save the model as torch.float32" in refuse(stock.to(dtype))


def test_complex_weights(refuse):
    assert "torch.ComplexFloatStorage" in refuse({"fc.weight": torch.zeros(3, 4, dtype=torch.complex64)})


def test_missing_and_extra_and_misshapen_weights(refuse, stock):
    state = stock.state_dict()
    for change in ({"features.3.squeeze.bias": None}, {"more": torch.zeros(1)}, {"features.0.weight": torch.zeros(3)}):
        changed = {name: value for name, value in {**state, **change}.items() if value is not None}
        message = refuse(changed, architecture="squeezenetv1_1")
        assert f"'{next(iter(change))}'" in message


def test_no_classes(refuse, stock):
    state = {
        **stock.state_dict(),
        "classifier.1.weight": torch.zeros(0, 512, 1, 1),
        "classifier.1.bias": torch.zeros(0),
    }
    assert "not an architecture" in refuse(state)


def test_configuration_of_another_model(refuse, stock_bytes):
    message = refuse(stock_bytes, architecture="resnet18")
    assert "holds a squeezenetv1_1" in message and "says resnet18" in message
    message = refuse(stock_bytes, classes=9)
    assert "has 5 classes" in message and "9" in message
