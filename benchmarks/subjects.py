"""Models to measure on: rounds made by make-round, and networks fitted to random prototypes in seconds."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trojai_moth.core.errors import MothError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.seeding import derive_seed, generator
from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.loading import build_architecture
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_round
from trojai_moth.rounds.samples import Samples, collect_samples, with_unseen
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.settings import MakeRoundSettings

SMALL = "small"
# Fresh images per class: a loss of a few tenths of a percent shows in a thousand images and not in two hundred.
FRESH = 250


@dataclass(frozen=True)
class Model:
    """A subject and its images; fresh ones are neither for hardening nor for guarding its accuracy."""

    subject: Subject
    samples: Samples
    fresh: ImagePool


def round_models(
    folder: Path, architecture: str, size: int, classes: int, count: int, seed: int, device: torch.device
) -> list[Model]:
    """``count`` models of a made round, which is made in ``folder`` if it is not there yet."""
    settings = MakeRoundSettings(
        models=count + count % 2, classes=classes, size=size, architecture=architecture, lookalikes=1, seed=seed
    )
    out = folder / f"{architecture}-{size}px-{classes}c-{count + count % 2}m-{seed}"
    try:
        make_round(out, settings, progress=lambda line: print(f"  {line}", flush=True))
        cases = [case for case in read_round(out) if isinstance(case, ModelFolder)][:count]
        return [model_with_images(case, seed, device) for case in cases]
    except MothError as error:
        raise SystemExit(str(error)) from None


def model_with_images(case: ModelFolder, seed: int, device: torch.device) -> Model:
    """A model directory with composed images."""
    opened = open_folder(case, device)
    own, fresh = (
        DataSettings(source="composed"),
        DataSettings(source="composed", train_per_class=1, held_per_class=FRESH),
    )
    images = derive_seed(seed, case.model_id, "images")
    samples = with_unseen(collect_samples(case, opened, own, images), case, opened, own, images)
    unseen = collect_samples(case, opened, fresh, derive_seed(seed, case.model_id, "fresh images"))
    return Model(opened.subject, samples, unseen.held)


class SmallNet(nn.Module):
    """Four convolutions with batch norm, for what has to be fast."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        self.body = nn.Sequential(
            *(
                layer
                for before, width in itertools.pairwise(widths)
                for layer in (nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            )
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes)."""
        return self.head(self.body(x).mean(dim=(2, 3)))


def prototype_images(classes: int, size: int, per_class: int, seed: int, draw: int) -> ImagePool:
    """Smooth random prototypes, one per class, shifted, dimmed and with noise; ``draw`` chooses the images."""
    coarse = torch.rand(classes, 3, 4, 4, generator=generator(seed, "prototypes"))
    prototypes = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    stream = generator(seed, "prototype images", draw)
    y = torch.arange(classes).repeat_interleave(per_class)
    shift = torch.randint(-size // 8, size // 8 + 1, (len(y), 2), generator=stream).tolist()
    x = torch.stack([prototypes[c].roll(s, (1, 2)) for c, s in zip(y.tolist(), shift, strict=True)])
    light = 0.7 + 0.3 * torch.rand(len(y), 1, 1, 1, generator=stream)
    noise = 0.1 * torch.randn(x.shape, generator=stream)
    return ImagePool((x * light + noise).clamp(0, 1), y)


def prototype_model(
    architecture: str, classes: int, size: int, seed: int, device: torch.device, per_class: int = 40, epochs: int = 8
) -> Model:
    """A network ("small" or a TrojAI name) fitted to prototypes on the device; not at all with no epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "weights", classes))
        module = SmallNet(classes) if architecture == SMALL else build_architecture(architecture, classes, seed=seed)
        module = module.to(device)
        train, held, fresh = (prototype_images(classes, size, per_class, seed, draw).to(device) for draw in range(3))
        if epochs:
            _fit(module, train, epochs, generator(seed, "order"))
    subject = Subject(
        model_id=f"{architecture}-{size}px-{classes}c",
        module=module.eval(),
        architecture=architecture,
        classes=classes,
        preprocessing=Preprocessing(stored_size=size, size=size),
        device=device,
        source_sha256="0" * 64,
    )
    return Model(subject, Samples(train, held, held, f"prototypes, {per_class} per class"), fresh)


def _fit(module: nn.Module, images: ImagePool, epochs: int, stream: torch.Generator) -> None:
    batch = 32
    steps = max(1, epochs * (len(images) // batch))
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps + 1, pct_start=0.2)
    module.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=stream).to(images.x.device)
        loss = F.cross_entropy(module(images.x[chosen]), images.y[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    optimiser.zero_grad(set_to_none=True)


def random_pairs(classes: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Different directed pairs, all if there are no more."""
    return sorted(random_order(classes, seed)[:count])


def random_order(classes: int, seed: int) -> list[tuple[int, int]]:
    """All directed pairs."""
    every = [(v, t) for v in range(classes) for t in range(classes) if v != t]
    order = torch.randperm(len(every), generator=generator(seed, "benchmark pairs"))
    return [every[i] for i in order.tolist()]
