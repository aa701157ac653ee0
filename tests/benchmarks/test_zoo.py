"""The benchmark on strangers' classifiers: networks take their weights, triggers work, and rules count right."""

import pytest
import torch
from conftest import ROOT


@pytest.mark.parametrize("name, least", [("verazuo", 0.95), ("wxr1998/p", 0.9), ("nad/s_net", 0.95)])
def test_a_strangers_network_has_its_backdoor(script, extra_data, name, least):
    data, folder = script("zoo_data"), extra_data / "real"
    if not folder.is_dir():
        pytest.skip("the data folder has no classifiers of strangers")
    entry = next(entry for entry in data.ENTRIES if entry.name == name)
    model = data.open_entry(entry, folder, most=200)
    assert model.accuracy > 0.9
    x, y = model.samples.train.x, model.samples.train.y
    wanted = torch.tensor(entry.targets)[y]
    turned = model.subject.logits(entry.stamp(folder)(x)).argmax(1) == wanted
    assert float(turned[wanted != y].float().mean()) > least


def test_a_patch_changes_its_pixels_only(script):
    data = script("zoo_data")
    grid = data._stamp("grid", ROOT)(torch.full((2, 3, 32, 32), 0.25))
    assert int((grid != 0.25).sum()) == 2 * 3 * 9
    assert grid[0, 0, 29:, 29:].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    anywhere = data._stamp("triangle", ROOT)(torch.zeros(4, 1, 28, 28))
    assert anywhere.sum((1, 2, 3)).tolist() == [13] * 4
    assert len({tuple(image.flatten().nonzero().flatten().tolist()) for image in anywhere}) > 1


@pytest.mark.parametrize("name", ["ibau", "nad", "resnet20", "verazuo", "wxr1998", "odyssey"])
def test_networks_give_ten_logits_last(script, name):
    network = getattr(script("zoo_networks"), name)().eval()
    small = name in ("verazuo", "wxr1998", "odyssey")
    output = network(torch.zeros(2, 1, 28, 28) if small else torch.zeros(2, 3, 32, 32))
    assert (output[-1] if isinstance(output, tuple) else output).shape == (2, 10)


def part(clean, universal, full, *, patch=True):
    pairs = [[None if v == t else 20.0 + v + 2 * t for t in range(4)] for v in range(4)]
    return {
        "clean": clean,
        "patch": patch,
        "targets": [2] * 4,
        "universal": universal,
        "universal_full": [{"victim": None, "target": 2, "size": full}],
        "pairs": pairs,
        "pairs_full": [{"victim": 1, "target": 0, "size": 25.0, "held_success": 0.9}],
    }


def test_a_clean_networks_smallest_trigger_grows_with_the_images(script):
    rules = script("zoo_rules").summary(
        {"bad": part(False, [40.0, 42.0, 5.0, 44.0], 5.5), "clean": part(True, [40.0, 42.0, 25.0, 44.0], 41.0)}
    )
    first, full = (rules[f"universal, ln sizes{words}, 3.5"] for words in ("", ", smallest in full"))
    assert (first["patches_found"], first["clean_flagged"]) == ([1, 1], [1, 1])
    assert (full["patches_found"], full["clean_flagged"]) == ([1, 1], [0, 1])


def test_the_wrong_target_is_not_found(script):
    rules = script("zoo_rules").summary({"bad": part(False, [5.0, 42.0, 40.0, 44.0], 40.0)})
    assert rules["universal, ln sizes, 3.5"]["patches_found"] == [0, 1]


def test_a_pair_that_fails_held_out_is_left_out_and_a_missing_look_is_not_counted(script):
    bad = part(False, [40.0, 42.0, 41.0, 44.0], 45.0)
    bad["pairs_full"] = [{"victim": 1, "target": 2, "size": 1.0, "held_success": 0.3}]
    rules = script("zoo_rules").summary({"bad": bad, "unmeasured": {**bad, "pairs": [], "pairs_full": []}})
    full = rules["pairs, ln sizes, smallest in full, 3.5"]
    held = rules["pairs, ln sizes, smallest in full that works held out, 3.5"]
    assert (full["patches_found"], held["patches_found"]) == ([1, 1], [0, 1])
