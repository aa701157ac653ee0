"""A root file system of a shell and a few programs, whose Python is a shell script; and a folder whose recipe fits."""

import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = ("sh", "rm", "chmod", "cat", "mkdir", "env")
PYTHON = """#!/bin/sh
case "$1" in
-m) echo "$@" >> /installed ;;
-c) echo trojai-moth stand-in ;;
*) . "$1" ;;
esac
"""
# The entry point is sourced by that, and finds the option that it needs.
ENTRY = """shift
while test $# -gt 0; do
    case "$1" in --result_filepath) result=$2 ;; esac
    shift
done
echo 0.5 > "$result"
echo refused
"""
RECIPE = """Bootstrap: docker
From: python:3.11-slim-bookworm

%files
    entrypoint.py /entrypoint.py
    metaparameters.json /metaparameters.json
    metaparameters_schema.json /metaparameters_schema.json
    learned_parameters /learned_parameters
    requirements.txt /opt/trojai-moth/requirements.txt

%post
    set -e
    python3 -m pip install --no-index -r /opt/trojai-moth/requirements.txt
    chmod -R a+rX /learned_parameters

%environment
    export WORD=said

%runscript
    exec python3 /entrypoint.py "$@"

%test
    set -e
    test -d /learned_parameters
    python3 -c "import x"
"""


def write_root(root):
    """The base: programs of this machine with the libraries that they load."""
    for name in PROGRAMS:
        source = Path(shutil.which(name)).resolve()
        _copy(source, root / "bin" / name)
        listed = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"(/\S+) \(0x", listed):
            _copy(Path(path), root / path.lstrip("/"))
    python = root / "usr" / "local" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return root


def _copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)
