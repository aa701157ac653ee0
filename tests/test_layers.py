"""An import may only go to a lower layer, and modules import each other without circles."""

import ast
from graphlib import CycleError, TopologicalSorter

from conftest import ROOT

LAYERS = (
    *("core", "loading", "triggers", "synthesis", "rounds", "scanners", "hardeners", "verdict", "runs", "testing"),
    *("eval", "submission", "cli"),
)
TOP = {"trojai_moth", "trojai_moth.__main__"}


def modules():
    """Every module of the package by its name, with its file."""
    for folder, prefix in (("trojai_moth", ()), ("scanners", ("trojai_moth",)), ("eval", ("trojai_moth",))):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = (*prefix, *path.relative_to(ROOT).with_suffix("").parts)
            yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(modules())


def imported(name, path):
    """(line, module of the package) for every import, also of functions and for type checks."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield from (
                    (node.lineno, found) for found in [whole if whole in MODULES else source] if found in MODULES
                )


def layer(name):
    return LAYERS.index(name.split(".")[1])


def test_imports_only_go_down():
    higher = [
        f"{path.relative_to(ROOT)}:{line}: imports {target}, which is higher"
        for name, path in MODULES.items()
        if name not in TOP
        for line, target in imported(name, path)
        if target not in TOP and layer(target) > layer(name)
    ]
    assert higher == []


def test_no_module_imports_itself_in_a_circle():
    edges = {
        name: {target for _, target in imported(name, path) if target not in TOP and not name.startswith(f"{target}.")}
        for name, path in MODULES.items()
        if name not in TOP
    }
    try:
        list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise AssertionError("a circle of imports: " + " -> ".join(error.args[1])) from None
