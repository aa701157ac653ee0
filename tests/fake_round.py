"""A tiny round in round 4's layout, whose models know their own example images."""

import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trojai_moth.core.images import list_examples, read_image
from trojai_moth.loading import build_architecture

SIZE, STORED, CLASSES, PER_CLASS = 32, 36, 3, 4
ARCHITECTURE = "squeezenetv1_1"
_CONFIG_OBJECT = "config.RoundConfig"


def write_round(root, *, models=1, poisoned=(), **options):
    """Models id-00000000, ... with METADATA.csv and ground_truth.csv; ``poisoned`` are numbers that are labelled so."""
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"id-{number:08d}" for number in range(models)]
    for number, model_id in enumerate(ids):
        directory = write_model(root / model_id, seed=number, **options)
        (directory / "ground_truth.csv").write_text(f"{int(number in poisoned)}\n")
    write_metadata(root, {model_id: number in poisoned for number, model_id in enumerate(ids)})
    return root


def write_metadata(root, labels):
    with (root / "METADATA.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model_name", "poisoned", "model_architecture"])
        writer.writerows([model_id, label, ARCHITECTURE] for model_id, label in labels.items())


def write_model(
    directory: Path,
    *,
    seed=0,
    architecture=ARCHITECTURE,
    classes=CLASSES,
    per_class=PER_CLASS,
    size=SIZE,
    stored=STORED,
    logits=True,
):
    directory.mkdir(parents=True)
    write_config(directory, architecture, classes, size, stored)
    _write_images(directory, classes, per_class, stored, np.random.default_rng(seed))
    module = fitted_module(directory, architecture, classes, size, seed)
    torch.save(module, directory / "model.pt")
    if logits:
        write_logits(directory, module, size)
    return directory


def write_config(directory, architecture=ARCHITECTURE, classes=CLASSES, size=SIZE, stored=STORED):
    """As jsonpickle writes it: the object's class beside its plain fields."""
    config = {
        "py/object": _CONFIG_OBJECT,
        "model_architecture": architecture,
        "number_classes": classes,
        "cnn_img_size_pixels": size,
        "img_size_pixels": stored,
        "foreground_image_format": "png",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))


def cropped(directory, size=SIZE):
    """Example images as the model reads them (N, 3, size, size), written out apart from the package, and labels."""
    arrays, labels = [], []
    for path, label in list_examples(directory / "clean_example_data"):
        array = read_image(path).permute(1, 2, 0).numpy()
        edge = (array.shape[0] - size) // 2
        arrays.append(array[edge : edge + size, edge : edge + size].astype(np.float32) / np.float32(255))
        labels.append(label)
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def fitted_module(directory, architecture, classes, size, seed):
    """Random features and a last layer fitted to the example images: right on them, and made in no time."""
    module = build_architecture(architecture, classes, seed=seed).eval()
    return fit_last_layer(module, *cropped(directory, size), classes)


def fit_last_layer(module, x, y, classes):
    """The module itself, whose last layer now gives inputs x (N, 3, H, W) their labels y (N,)."""
    last = module.classifier[1] if hasattr(module, "classifier") else module.fc
    seen = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].reshape(*inputs[0].shape[:2], -1)))
    with torch.no_grad():
        module(x)
        hook.remove()
        features = torch.cat([seen[0].mean(2), torch.ones(len(y), 1)], dim=1).double()
        goal = 4.0 * torch.nn.functional.one_hot(y, classes).double() + 1.0
        gram = features @ features.T
        ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(y)).double()
        weight = (features.T @ torch.linalg.solve(gram + ridge, goal)).T.float()
        last.weight.copy_(weight[:, :-1].reshape(last.weight.shape))
        last.bias.copy_(weight[:, -1])
    return module


def write_logits(directory, module, size=SIZE, write=lambda value: repr(float(value))):
    """The logits that the module itself gives for the example images, as the round's CSV."""
    x, _ = cropped(directory, size)
    with torch.no_grad():
        logits = module(x)
    lines = ["Example, Logits"]
    for (path, _), row in zip(list_examples(directory / "clean_example_data"), logits, strict=True):
        lines.append(", ".join([path.name, *(write(value) for value in row)]))
    (directory / "clean-example-logits.csv").write_text("\n".join(lines) + "\n")


def _write_images(directory, classes, per_class, stored, rng):
    """Bands at a class's own place and in its own colour on noise, and one sign per class."""
    examples, signs = directory / "clean_example_data", directory / "foregrounds"
    examples.mkdir()
    signs.mkdir()
    colours = rng.integers(120, 256, (classes, 3))
    for label in range(classes):
        sign = np.full((24, 24, 4), 255, dtype=np.uint8)
        sign[..., :3] = colours[label]
        Image.fromarray(sign).save(signs / f"{label}.png")
        for number in range(per_class):
            image = rng.integers(0, 60, (stored, stored, 3))
            low = 2 + label * (stored - 8) // classes
            image[low : low + stored // classes] = colours[label] + rng.integers(-30, 30, 3)
            name = f"class_{label}_example_{number}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(examples / name)
