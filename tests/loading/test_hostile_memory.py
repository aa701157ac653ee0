"""Refusing takes little memory, whatever a file claims: all of the worst in one process, beside what torch takes."""

import json
import subprocess
import sys
import zipfile

import pytest

from trojai_moth.loading.architectures import Variant, build_skeleton, shapes_of

LIMIT_BYTES = 500 << 20
# Its own process: the peak of this one belongs to whatever ran before.
MEASURE = """
import json, resource, sys
from pathlib import Path
from trojai_moth.loading import inspect_model
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, refused = peak(), 0
for path in map(Path, sys.argv[1:]):
    refused += inspect_model(path).verdict == "refused"
grown = peak() - before
ballast = b"x" * (before + (600 << 20))
print(json.dumps({"refused": refused, "grown": grown, "control": peak() - before}))
"""


def large_model_with_one_undefined_number(path):
    """Weights that fit a stock network, all zero but for the last; sparse, so it takes no disk."""
    header, at = {}, 0
    for name, shape in shapes_of(build_skeleton(Variant("vgg11bn", 20_000))).items():
        kind, size = ("I64", 8) if name.endswith("num_batches_tracked") else ("F32", 4)
        for side in shape:
            size *= side
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
        file.seek(8 + len(text) + at - 4)
        file.write(b"\x00\x00\xc0\x7f")
    assert path.stat().st_size > 1.5 * LIMIT_BYTES


@pytest.fixture
def bombs(tmp_path, asm, container, old_file):
    contents = {
        "deflated": container(asm.start + asm.none, {"0": bytes(20 << 20)}, compression=zipfile.ZIP_DEFLATED),
        "text": container(asm.start + asm.text("x" * (31 << 20)) + asm.stop),
        "dictionaries": container(asm.start + asm.empty_dict * 499_000 + asm.stop),
        "memo": container(asm.start + asm.none + b"".join(map(asm.put, range(400_000))) + asm.stop),
        "tower": container(asm.start + asm.none + b"\x85" * 499_000 + asm.stop),
        "names": container(asm.start + asm.name("torch.nn.modules.x", "Y" * 5000) * 6_000 + asm.stop),
        "old": old_file(root=asm.mark * 200_000),
        "claim": container(asm.start + asm.storage("0", 1 << 39) + asm.stop, {"0": bytes(4)}),
    }
    paths = []
    for name, content in contents.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    for name, size in (("sparse", 1 << 40), ("zeros", 100 << 20)):
        paths.append(tmp_path / name)
        with paths[-1].open("wb") as file:
            file.truncate(size)
    paths.append(tmp_path / "large")
    large_model_with_one_undefined_number(paths[-1])
    return paths


def test_the_worst_files_take_less_than_500_megabytes(bombs):
    run = subprocess.run([sys.executable, "-c", MEASURE, *bombs], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout)
    assert measured["refused"] == len(bombs)
    # The control shows that the figure can exceed the limit.
    assert measured["grown"] < LIMIT_BYTES // 2 < measured["control"]
