"""On a GPU: speed of the inversion and of MOTH at 224 pixels and 20 classes, against the published algorithm.

    python benchmarks/accelerator.py --device auto --out benchmarks/results/accelerator.json

Per network: images per second of the inversion and of the bare network; the share of the card's floor for that many
passes, where its peak is known (--tflops, --bandwidth, or a card in the table below); seconds of MOTH as it ships; and
the published algorithm for at most --cap seconds on the same card, with the gains of both. Networks are fitted to
random prototypes for a few seconds: speed does not depend on what the classes show, gains do. Without a card nothing is
measured, and the record says so; ``--tiny`` tries the script on a CPU and says that too.
"""

from typing import Any

import torch
from contest import Meter, accuracy, ours, theirs, verdict
from record import Record, parser
from reference.moth import Published
from subjects import Model, prototype_model
from throughput import throughput
from torch import nn

from trojai_moth.core.records import to_dict
from trojai_moth.core.subject import Subject
from trojai_moth.hardeners.moth_settings import MothSettings

NETWORKS = ("resnet18", "resnet50", "squeezenetv1_1", "mobilenetv2")
# Dense bf16 TFLOP/s and TB/s of memory, from the makers' data sheets, by a part of the name that the driver gives. The
# SXM and PCIe versions of one card differ, so both parts of a name have to be there.
CARDS = {
    ("H100", "PCIe"): (756.0, 2.0),
    ("H100", "HBM3"): (989.0, 3.35),
    ("H200",): (989.0, 4.8),
    ("A100", "SXM4-80GB"): (312.0, 2.04),
    ("A100", "PCIE-40GB"): (312.0, 1.56),
}
# Assumed: bytes of an activation in bf16, and how often a fused convolution and its gradient move one.
BYTES, TRANSFERS = 2, 5
# Multiply-adds count twice, and the gradient of the input costs another forward pass.
OPERATIONS = 2 * 2
TINY = {
    "networks": ["squeezenetv1_1"],
    "classes": 3,
    "size": 32,
    "epochs": 1,
    "pairs": 2,
    "images": 4,
    "steps": 4,
    "cap": 2.0,
    "per_class": 12,
}


def main() -> None:
    """Measure every network and write the record."""
    options = parser(__doc__)
    options.add_argument("--networks", nargs="+", default=list(NETWORKS))
    options.add_argument("--classes", type=int, default=20)
    options.add_argument("--size", type=int, default=224)
    options.add_argument("--per-class", type=int, default=60)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--pairs", type=int, default=20, help="directed pairs that gains are measured on")
    options.add_argument("--images", type=int, default=16, help="images per pair")
    options.add_argument("--steps", type=int, default=200, help="inversion steps of the meter")
    options.add_argument("--cap", type=float, default=600, help="seconds after which the reference is stopped")
    options.add_argument("--tflops", type=float, help="the card's dense bf16 peak, if it is not in the table")
    options.add_argument("--bandwidth", type=float, help="its TB/s of memory")
    options.add_argument("--tiny", action="store_true", help="toy sizes, on a CPU too: tries the script, shows nothing")
    options.set_defaults(device="auto")
    chosen = options.parse_args()
    if chosen.tiny:
        vars(chosen).update(TINY)
    record = Record("accelerator", chosen, hardener=to_dict(hardening(chosen)))
    if record.device.type == "cpu" and not chosen.tiny:
        record.finish(measured=False, reason="no accelerator on this machine; nothing was measured")
        print(record.data["summary"]["reason"])
        return
    for name in chosen.networks:
        one_network(record, name, chosen)
        record.finish(**summary(record.data["parts"], chosen.tiny))
    print(record.data["summary"])


def hardening(chosen: Any) -> MothSettings:
    """As it ships, or as little as possible."""
    if not chosen.tiny:
        return MothSettings()
    return MothSettings(rounds=1, turns=1, first_steps=2, later_steps=2, warmup_steps=2, sgd_steps=2, recovery_steps=1)


def published(chosen: Any) -> Published:
    """As published, until the cap; or as little as possible."""
    if not chosen.tiny:
        return Published(sgd_steps=1_000_000, cap_seconds=chosen.cap)
    return Published(sgd_steps=6, universal_steps=2, first_steps=2, later_steps=2, batch=36, cap_seconds=chosen.cap)


def one_network(record: Record, name: str, chosen: Any) -> None:
    """Every part of one network; it is only built when a part is missing."""
    kept: list[Model] = []

    def model() -> Model:
        if not kept:
            sizes = {"per_class": chosen.per_class, "epochs": chosen.epochs}
            kept.append(prototype_model(name, chosen.classes, chosen.size, chosen.seed, record.device, **sizes))
        return kept[0]

    meter = Meter(chosen.pairs, chosen.images, chosen.steps, chosen.seed)
    batches = (8,) if chosen.tiny else (64, 128, 256, 512, 1024)
    sizes = {"rows": 2, "per_row": 4, "repeats": 1} if chosen.tiny else {"rows": 256, "per_row": 16, "steps": 50}
    record.part(
        f"{name} throughput",
        lambda: {
            **throughput(model().subject, model().samples.train, batches=batches, precision="auto", **sizes),
            **work_of(model().subject),
        },
    )
    before = record.part(
        f"{name} before",
        lambda: {"sizes": meter.sizes(model(), model().subject), "accuracy": accuracy(model(), model().subject)},
    )
    mine = record.part(f"{name} ours", lambda: ours(model(), meter, hardening(chosen), chosen.seed))
    rival = record.part(
        f"{name} reference",
        lambda: theirs(model(), meter, published(chosen), chosen.seed, before["sizes"], None, chosen.cap / 4),
    )
    record.part(f"{name} verdict", lambda: verdict(before["sizes"], mine, rival))
    record.part(f"{name} floor", lambda: floor(record, f"{name} throughput", chosen))


def work_of(subject: Subject) -> dict[str, float]:
    """Multiply-adds and outputs of the convolutions and products of one forward pass, per image."""
    found = {"multiply_adds": 0.0, "outputs": 0.0}

    def note(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        per_output = layer.weight[0].numel()
        found["multiply_adds"] += out[0].numel() * per_output
        found["outputs"] += out[0].numel()

    twin = subject.clone().module.eval()
    hooks = [part.register_forward_hook(note) for part in twin.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        twin(torch.zeros(1, *subject.shape, device=subject.device))
    for hook in hooks:
        hook.remove()
    return found


def floor(record: Record, part: str, chosen: Any) -> dict[str, Any]:
    """What the card could do at most by arithmetic and by memory, and what share of the lower is reached."""
    peak = card(record.data["device"], chosen)
    if peak is None:
        return {"known": False, "reason": "the peak of this device is not in the table; give --tflops and --bandwidth"}
    measured = record.data["parts"][part]
    by_arithmetic = peak[0] * 1e12 / (OPERATIONS * measured["multiply_adds"])
    by_memory = peak[1] * 1e12 / (BYTES * TRANSFERS * measured["outputs"])
    return {
        "known": True,
        "tflops": peak[0],
        "terabytes_per_second": peak[1],
        "images_per_second_by_arithmetic": by_arithmetic,
        "images_per_second_by_memory": by_memory,
        "share": measured["images_per_second"]["ours"] / min(by_arithmetic, by_memory),
    }


def card(device: str, chosen: Any) -> tuple[float, float] | None:
    """TFLOP/s and TB/s of the device, None if they are not known."""
    if chosen.tflops and chosen.bandwidth:
        return chosen.tflops, chosen.bandwidth
    return next((peak for parts, peak in CARDS.items() if all(part in device for part in parts)), None)


def summary(parts: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """One line per network."""
    names = [name.removesuffix(" floor") for name in parts if name.endswith(" floor")]
    networks = {
        name: {
            "images_per_second": parts[f"{name} throughput"]["images_per_second"]["ours"],
            "throughput_share": parts[f"{name} throughput"]["share"],
            "floor_share": parts[f"{name} floor"].get("share"),
            "moth_seconds": parts[f"{name} ours"]["seconds"],
            "time_ratio": parts[f"{name} verdict"]["time_ratio"],
            "time_ratio_is_lower_bound": parts[f"{name} verdict"]["time_ratio_is_lower_bound"],
        }
        for name in names
    }
    reason = {"reason": "toy sizes: only shows that the script runs"} if tiny else {}
    return {"measured": not tiny, **reason, "networks": networks}


if __name__ == "__main__":
    main()
