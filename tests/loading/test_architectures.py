import pytest
import torch

from trojai_moth.core.errors import SettingsError
from trojai_moth.loading import ARCHITECTURES, build_architecture
from trojai_moth.loading.architectures import Variant, build_skeleton, canonical_name, identify, shapes_of

ROUND_TWO_NAMES, MNASNETS = 23, 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_alone_tell_the_architecture_and_class_count(name):
    shapes = shapes_of(build_skeleton(Variant(name, 13)))
    assert identify(shapes) == Variant(name, 13)


def test_the_table_is_complete_and_immutable():
    assert len(ARCHITECTURES) == ROUND_TWO_NAMES + MNASNETS
    with pytest.raises(TypeError):
        ARCHITECTURES["resnet18"] = None


@pytest.mark.parametrize(
    "written, name",
    [
        ("resnet18", "resnet18"),
        ("classification:mobilenet_v2", "mobilenetv2"),
        ("classification:wide_resnet50_2", "wideresnet50"),
        ("classification:resnet50", "resnet50"),
        ("squeezenetv1_1", "squeezenetv1_1"),
        ("SqueezeNet1_1", "squeezenetv1_1"),
        ("classification:vit_base_patch32_224", "vit_base_patch32_224"),
        ("classification:alexnet", None),
        ("", None),
    ],
)
def test_names_as_rounds_write_them(written, name):
    assert canonical_name(written) == name


def test_random_weights_follow_the_seed_and_leave_the_global_stream_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = build_architecture("resnet18", 4, seed=5).state_dict()
    again = build_architecture("resnet18", 4, seed=5).state_dict()
    other = build_architecture("resnet18", 4, seed=6).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("name", ["squeezenetv1_0", "shufflenet1_0", "googlenet"])
def test_built_networks_map_images_to_logits(name):
    with torch.no_grad():
        assert build_architecture(name, 6).eval()(torch.zeros(2, 3, 96, 96)).shape == (2, 6)


@pytest.mark.parametrize("name, classes, match", [("resnet19", 4, "resnet18"), ("resnet18", 0, "at least one")])
def test_impossible_wishes_are_settings_errors(name, classes, match):
    with pytest.raises(SettingsError, match=match):
        build_architecture(name, classes)
