"""What other scanners of model files say of genuine ones, beside what ``trojai-moth inspect`` says of them.

    python -m venv TOOLS && TOOLS/bin/pip install fickling typing_extensions picklescan modelscan
    python benchmarks/other_scanners.py --tools TOOLS/bin --out FILE MODEL_OR_FOLDER ...

The tools have an environment of their own, since they bring other versions of shared packages. Each is called on each
file as its documentation says; fickling, which reads pickles, also on the pickle inside a zip. The table is printed.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trojai_moth.core.files import write_text
from trojai_moth.loading import inspect_model

TOOLS = ("fickling", "picklescan", "modelscan")
SEVERITIES = (
    *("LIKELY_SAFE", "POSSIBLY_UNSAFE", "SUSPICIOUS"),
    *("LIKELY_UNSAFE", "LIKELY_OVERTLY_MALICIOUS", "OVERTLY_MALICIOUS"),
)
"""Fickling's, from the least to the worst."""
LIMIT_S = 300
_VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def main() -> None:
    """Ask all tools about all files, write what they said and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, help="folder with python, fickling, picklescan, modelscan")
    parser.add_argument("--out", type=Path, required=True, help="JSON record")
    parser.add_argument("files", type=Path, nargs="+", metavar="MODEL_OR_FOLDER")
    chosen = parser.parse_args()
    tools = chosen.tools.absolute()
    versions = json.loads(_run([tools / "python", "-c", _VERSIONS, *TOOLS]).stdout)
    rows = [asked(path, tools) for given in chosen.files for path in _files(given)]
    record = {"benchmark": "other_scanners", "versions": versions, "rows": rows}
    write_text(chosen.out, json.dumps(record, indent=1) + "\n")
    for line in table(rows):
        print(line)


def _files(given: Path) -> list[Path]:
    return sorted(given.rglob("*.pt")) if given.is_dir() else [given]


def asked(path: Path, tools: Path) -> dict[str, Any]:
    """What each tool says of one file, which is named with the folder that it lies in."""
    print(f"{path.name} ...", file=sys.stderr, flush=True)
    found = inspect_model(path)
    return {
        "file": f"{path.absolute().parent.name}/{path.name}",
        "container": found.container,
        "written_by": found.written_by,
        "fickling": fickling(path, tools),
        "fickling_on_its_pickle": _fickling_inside(path, tools) if found.container == "zip" else None,
        "picklescan": picklescan(path, tools),
        "modelscan": modelscan(path, tools),
        "trojai_moth": found.verdict,
    }


def fickling(path: Path, tools: Path) -> str:
    """Its worst verdict on the pickles of a file, or that it could not read the file."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        done = _run([tools / "fickling", "--check-safety", "--json-output", results, path.absolute()], folder)
        if done.returncode == 2 and "arsing error" in done.stderr + done.stdout:
            return "cannot be parsed, do not trust"
        if results.exists():
            said = re.findall(r'"severity": "([A-Z_]+)"', results.read_text(encoding="utf-8"))  # one for each pickle
            return max(said, key=SEVERITIES.index).lower().replace("_", " ")
    return _failed(done)


def _fickling_inside(path: Path, tools: Path) -> str:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        inside = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        (Path(folder) / "data.pkl").write_bytes(archive.read(inside))
        return fickling(Path(folder) / "data.pkl", tools)


def picklescan(path: Path, tools: Path) -> str:
    """How many names it finds suspicious and dangerous."""
    done = _run([tools / "picklescan", "--path", path.absolute()])
    counts = dict(re.findall(r"(Suspicious|Dangerous) globals: (\d+)", done.stdout))
    return f"{counts['Suspicious']} suspicious, {counts['Dangerous']} dangerous" if len(counts) == 2 else _failed(done)


def modelscan(path: Path, tools: Path) -> str:
    """How many issues it finds, and errors."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        done = _run([tools / "modelscan", "-p", path.absolute(), "-r", "json", "-o", results], folder)
        if not results.exists():
            return _failed(done)
        said = json.loads(results.read_text(encoding="utf-8"))
    errors = f", {len(said['errors'])} errors" if said["errors"] else ""
    return f"{said['summary']['total_issues'] or 'no'} issues{errors}"


def _failed(done: subprocess.CompletedProcess[str]) -> str:
    last = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return f"fails with exit code {done.returncode} ({last[-1][:80] if last else 'no word'})"


def _run(words: Sequence[object], folder: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The answers as a Markdown table."""
    names = ("file", "fickling", "fickling_on_its_pickle", "picklescan", "modelscan", "trojai_moth")
    head = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", f"|{'---|' * len(names)}"]
    return [*head, *(f"| {' | '.join(row[name] or '-' for name in names)} |" for row in rows)]


if __name__ == "__main__":
    main()
