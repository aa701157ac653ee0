"""The public MOTH code itself on one model directory, from a checkout of its repository.

    python benchmarks/public_moth.py MODEL_DIR --checkout DIR --out benchmarks/results/public_moth.json

Its PyTorch part is imported as it is; from outside it is given our model, our images and our device in place of its own
tables of data sets, and a folder of its own to write to. Its defaults hold (batch 128, SGD with 1e-4) but for the
number of epochs, which is as many as make --sgd-steps: two of them are few steps here, and below ten steps it ends with
an error. Gain, by the inversion of benchmarks/reference, and accuracy on fresh images stand beside its seconds.
"""

import argparse
import contextlib
import copy
import importlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from contest import Meter, accuracy
from record import Record, parser
from subjects import Model, model_with_images

from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import to_dict
from trojai_moth.core.seeding import derive_seed
from trojai_moth.core.subject import Subject
from trojai_moth.eval.gain import size_gains
from trojai_moth.rounds.reading import read_case

BATCH, FEWEST_STEPS = 128, 10
SHARE_OF_TEST = 20  # it watches accuracy on a twentieth of its test images


class Instead:
    """A module with some names replaced."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def main() -> None:
    """One model."""
    options = parser(__doc__)
    options.add_argument("model", type=Path)
    options.add_argument("--checkout", type=Path, required=True, help="of the public repository")
    options.add_argument("--sgd-steps", type=int, default=35, help="training steps, up to whole epochs; 10 at least")
    options.add_argument("--pairs", type=int, default=16, help="directed pairs that gains are measured on")
    options.add_argument("--images", type=int, default=30, help="images per pair")
    options.add_argument("--steps", type=int, default=300, help="inversion steps of the meter")
    chosen = options.parse_args()
    if not (chosen.checkout / "src_torch" / "main.py").is_file():
        raise SystemExit(f"--checkout {chosen.checkout}: no src_torch/main.py in it")
    record = Record("public_moth", chosen)
    model = model_with_images(read_case(chosen.model), chosen.seed, record.device)
    meter = Meter(chosen.pairs, chosen.images, chosen.steps, chosen.seed)
    before = record.part("before", lambda: measured(model, meter, model.subject))
    after = record.part("after", lambda: harden(model, meter, chosen))
    gain = to_dict(size_gains(before["sizes"], after["sizes"]))
    record.finish(gain=gain, accuracy_drop=before["accuracy"] - after["accuracy"], seconds=after["seconds"])
    print(record.data["summary"])


def measured(model: Model, meter: Meter, subject: Subject) -> dict[str, Any]:
    """Sizes and accuracy."""
    return {"model": model.subject.model_id, "sizes": meter.sizes(model, subject), "accuracy": accuracy(model, subject)}


def harden(model: Model, meter: Meter, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run the public code on a copy of the model."""
    subject = model.subject.clone()
    said = io.StringIO()
    with public_code(chosen.checkout, subject, model, chosen) as code:
        np.random.seed(derive_seed(chosen.seed, "public") % 2**32)  # noqa: NPY002 (the stream it draws from)
        torch.manual_seed(derive_seed(chosen.seed, "public"))
        begun = time.perf_counter()
        with contextlib.redirect_stdout(said):
            code.moth()
        seconds = time.perf_counter() - begun
    subject.module.eval()
    periods = said.getvalue().count("selected pair")
    return {"seconds": seconds, "pairs_picked": periods, **measured(model, meter, subject)}


@contextlib.contextmanager
def public_code(checkout: Path, subject: Subject, model: Model, chosen: argparse.Namespace) -> Iterator[Any]:
    """The public main module, which finds our things where it looks for its own, in a working folder of its own."""
    before, folder = set(sys.modules), str(checkout.resolve() / "src_torch")
    home = Path.cwd()
    sys.path.insert(0, folder)
    try:
        with tempfile.TemporaryDirectory() as own:
            for name in ("ckpt", "data/pair_count"):
                (Path(own) / name).mkdir(parents=True)
            os.chdir(own)
            code, inversion, tables = (importlib.import_module(name) for name in ("main", "inversion", "util"))
            replace_names(code, inversion, tables, subject, model)
            steps = -(-len(model.samples.train) // BATCH)
            code.args = arguments(subject, -(-max(chosen.sgd_steps, FEWEST_STEPS) // steps))
            yield code
    finally:
        os.chdir(home)
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if folder in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def replace_names(code: Any, inversion: Any, tables: Any, subject: Subject, model: Model) -> None:
    """Our classes, size, images, model and device in place of its tables of data sets and of its fixed device."""
    module, weights = subject.module, copy.deepcopy(subject.module.state_dict())
    for part in (code, inversion):
        part.get_num = lambda dataset: subject.classes
        part.get_size = lambda dataset: (subject.size, subject.size, 3)
        part.torch = Instead(torch, device=lambda name: subject.device, load=lambda path: weights)
    tables.get_norm = lambda dataset: (torch.zeros(3), torch.ones(3))
    code.get_model = lambda args: module
    code.get_dataloader = lambda dataset, train=True, ratio=1.0, batch_size=BATCH: loader(
        model.samples.train if train else thinned(model.samples.held), batch_size, train
    )


def thinned(images: ImagePool) -> ImagePool:
    """A twentieth of the images."""
    return images.take(torch.arange(0, len(images), SHARE_OF_TEST))


def loader(images: ImagePool, batch: int, shuffle: bool) -> Any:
    """Batches of images and labels on the CPU, as a data loader gives them."""
    data = torch.utils.data.TensorDataset(images.x.cpu(), images.y.cpu())
    return torch.utils.data.DataLoader(data, batch_size=batch, shuffle=shuffle)


def arguments(subject: Subject, epochs: int) -> argparse.Namespace:
    """The public code's own defaults."""
    return argparse.Namespace(
        dataset="ours", model=subject.architecture, suffix="nat", type="nat", device=subject.device,
        epochs=epochs, lr=1e-4, data_ratio=1.0, warm_ratio=0.5, portion=0.1,
        mean=torch.zeros(3), std=torch.ones(3),
    )  # fmt: skip


if __name__ == "__main__":
    main()
