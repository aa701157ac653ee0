"""Refusing takes little memory, whatever a file claims.

A file that is no model is refused without torch, and the limit then holds for the whole process; for one that looks
like a stock network it holds beside what torch itself takes.
"""

import json
import subprocess
import sys
import zipfile

import pytest

from trojai_moth.loading import inspect_model
from trojai_moth.loading.architectures import Variant, build_skeleton, shapes_of

LIMIT_BYTES = 500 << 20
# Its own process: the peak of this one belongs to whatever ran before.
MEASURE = """
import json, resource, sys
from pathlib import Path
from trojai_moth.loading import inspect_model
if sys.argv[1] == "with torch":
    import trojai_moth.loading.load
def peak():
    status = Path("/proc/self/status")
    if status.exists():  # the other figure begins with that of the process that started this one
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, refused = peak(), 0
for path in map(Path, sys.argv[2:]):
    refused += inspect_model(path).verdict == "refused"
grown = peak() - before
ballast = b"x" * (before + (600 << 20))
print(json.dumps({"refused": refused, "grown": grown, "control": peak() - before, "all": grown + before,
                  "torch": "torch" in sys.modules}))
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
    return paths


@pytest.fixture
def many_pickles(tmp_path):
    """Zips of pickles that nothing mentions: long names, and many instructions."""
    contents = {
        "long names": [b"c%06d" % number + b"a" * (15 << 20) + b"\nb\n." for number in range(12)],
        "many instructions": [(b"\x80\x02" + b"N" * 499_990 + b".") * 8] * 4,
        "many names": [b"".join(b"cm%d\n%d\n" % (number, n) for n in range(400)) + b"." for number in range(500)],
    }
    paths = []
    for name, pickles in contents.items():
        paths.append(tmp_path / name)
        with zipfile.ZipFile(paths[-1], "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02N.")
            for number, content in enumerate(pickles):
                archive.writestr(f"archive/data/{number}.pkl", content)
    return paths


def test_all_pickles_of_a_file_together_take_no_more_than_one(many_pickles):
    found = measured("without torch", many_pickles)
    assert found["refused"] == len(many_pickles) and found["all"] < LIMIT_BYTES // 2
    names = [inspect_model(path).names for path in many_pickles]
    assert all(len(said) <= 1000 and all(len(name) < 300 for name in said) for said in names)
    assert "not looked at" in names[0][-1] and "not looked at" in names[1][-1]


def measured(words, paths):
    run = subprocess.run([sys.executable, "-c", MEASURE, words, *paths], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_what_is_no_model_is_refused_in_less_than_500_megabytes_in_all(bombs):
    found = measured("without torch", bombs)
    assert found["refused"] == len(bombs) and not found["torch"]
    # The control shows that the figure can exceed the limit.
    assert found["all"] < LIMIT_BYTES < found["control"]


def test_a_large_file_takes_less_than_500_megabytes_beside_torch(tmp_path):
    """The others were refused before torch was wanted."""
    large_model_with_one_undefined_number(tmp_path / "large")
    found = measured("with torch", [tmp_path / "large"])
    assert found["refused"] == 1 and found["torch"]
    assert found["grown"] < LIMIT_BYTES // 2 < found["control"]


def test_the_command_looks_at_a_file_without_torch(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")
    code = "import sys; from trojai_moth.cli.main import main; sys.argv[1:] = ['inspect', 'model.pt']\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2 and run.stdout.splitlines()[-1] == "False", run.stdout + run.stderr
