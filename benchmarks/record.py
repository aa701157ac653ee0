"""The JSON record of a benchmark: what it ran on, with what, and what came out, written part by part."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision

import trojai_moth
from trojai_moth.core.device import describe_device, prepare_process, resolve_device
from trojai_moth.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="JSON record; one that is there is gone on with")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--device", default="cpu", help="cpu, auto or cuda:N")
    return made


class Record:
    """Parts are computed once: a killed run goes on where it stopped, as long as its settings are the same.

    dated: parts may be of several commits, and each says of which.
    """

    def __init__(self, benchmark: str, options: argparse.Namespace, *, dated: bool = False, **settings: Any) -> None:
        """Options that are paths are left out: they say nothing about the result."""
        self._dated = dated
        self.path: Path = options.out
        self.device = resolve_device(options.device)
        prepare_process(self.device)
        own = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
        head = {"benchmark": benchmark, "settings": {**own, **settings}, **machine(self.device)}
        self.data: dict[str, Any] = json.loads(json.dumps({**head, "parts": {}}))
        if self.path.exists():
            before = json.loads(self.path.read_text(encoding="utf-8"))
            if dated:
                before["versions"]["commit"] = self.data["versions"]["commit"]
            changed = [
                name for name in ("settings", "versions", "device", "threads") if before[name] != self.data[name]
            ]
            if changed and before["parts"]:
                raise SystemExit(f"{self.path}: has other {', '.join(changed)}; choose another --out or delete it")
            self.data["parts"] = before["parts"]

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """The part of this name, computed and written if it is not there yet."""
        parts = self.data["parts"]
        if name not in parts:
            print(f"{self.data['benchmark']}: {name} ...", flush=True)
            parts[name] = json.loads(json.dumps(make(), allow_nan=False))
            if self._dated:
                parts[name]["commit"] = commit()
            self.write()
        return parts[name]

    def finish(self, **summary: Any) -> None:
        """Write the figures that follow from all parts."""
        self.data["summary"] = summary
        self.write()

    def write(self) -> None:
        """As it is now."""
        write_text(self.path, json.dumps(self.data, indent=1, allow_nan=False) + "\n")


def machine(device: torch.device) -> dict[str, Any]:
    """Versions, device and processor."""
    return {
        "versions": {
            "trojai-moth": trojai_moth.__version__,
            "commit": commit(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "python": platform.python_version(),
        },
        "device": describe_device(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def commit() -> str:
    """The checkout's commit, marked when files of the package differ from it."""
    try:
        words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
