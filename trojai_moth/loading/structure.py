"""From the symbols of a pickle to named weights: what state_dict() would have said, without any module existing."""

from __future__ import annotations

from dataclasses import dataclass

from .constructors import DATA_PARALLEL
from .refusal import Refusal, quote
from .symbols import Instance, TensorClaim

MAX_DEPTH = 20
"""The deepest stock model nests 6 modules."""

_PARALLEL_PREFIX = "module."
_STATE_KEYS = ("state_dict", "model_state_dict")
_NO_MODEL = "holds neither a whole model nor a state_dict"


@dataclass(frozen=True)
class Weights:
    """Named tensors of a file in its order and, when it holds a whole model, the model's root object.

    ``wrapper`` is the DataParallel that the model was saved in, if it was; names are those without it.
    """

    claims: dict[str, TensorClaim]
    root: Instance | None
    wrapper: Instance | None = None


def find_weights(root: object) -> Weights:
    """Find the weights in a whole module, a state dict, or a dictionary with one, each also inside a DataParallel."""
    if isinstance(root, Instance):
        wrapper = root if root.kind == DATA_PARALLEL else None
        root = _wrapped(wrapper) if wrapper else root
        claims: dict[str, TensorClaim] = {}
        _walk(root, "", claims, set(), 0)
        return Weights(claims, root, wrapper)
    for key in _STATE_KEYS:
        if isinstance(root, dict) and isinstance(root.get(key), dict):
            root = root[key]
    if not isinstance(root, dict) or not root:
        raise Refusal(_NO_MODEL)
    return Weights(_without_prefix(_flat(root)), None)


def _wrapped(wrapper: Instance) -> Instance:
    inside = members(wrapper, "_modules")
    model = inside.get("module")
    if not isinstance(model, Instance) or len(inside) != 1:
        raise Refusal("has a DataParallel that does not hold exactly one model")
    return model


def _without_prefix(claims: dict[str, TensorClaim]) -> dict[str, TensorClaim]:
    """Names as they were before DataParallel; its prefix is only taken away where every name has it."""
    if not all(name.startswith(_PARALLEL_PREFIX) for name in claims):
        return claims
    return {name.removeprefix(_PARALLEL_PREFIX): claim for name, claim in claims.items()}


def _flat(state: dict[object, object]) -> dict[str, TensorClaim]:
    claims = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, TensorClaim):
            raise Refusal(f"{_NO_MODEL} (its entry {quote(name)} is not a tensor)")
        claims[name] = value
    return claims


def _walk(module: Instance, prefix: str, claims: dict[str, TensorClaim], seen: set[int], depth: int) -> None:
    if id(module) in seen or depth > MAX_DEPTH:
        raise Refusal(f"nests its modules endlessly or uses one twice (at {quote(prefix)})")
    seen.add(id(module))
    for name, value in {**members(module, "_parameters"), **members(module, "_buffers")}.items():
        if isinstance(value, TensorClaim):
            claims[prefix + name] = value
        elif value is not None:
            raise Refusal(f"has something that is not a tensor in place of the weight {quote(prefix + name)}")
    for name, child in members(module, "_modules").items():
        if isinstance(child, Instance):
            _walk(child, f"{prefix}{name}.", claims, seen, depth + 1)
        elif child is not None:
            raise Refusal(f"has something that is not a module in place of {quote(prefix + name)}")


def members(module: Instance, group: str) -> dict[str, object]:
    """The dictionary ``_parameters``, ``_buffers`` or ``_modules`` of a module; raises Refusal when it is not one."""
    found = (module.state or {}).get(group)
    if not isinstance(found, dict) or not all(isinstance(name, str) and "." not in name for name in found):
        raise Refusal(f"has a {module.kind.name[:60]} without a proper {group}")
    return found  # type: ignore[return-value]
