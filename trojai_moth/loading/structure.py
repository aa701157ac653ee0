"""From the symbols of a pickle to named weights: what state_dict() would have said, without any module existing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .constructors import DATA_PARALLEL
from .pickle_machine import PickleContent
from .refusal import STATE_DICT_MEND, Refusal, quote
from .symbols import Instance, TensorClaim

MAX_DEPTH = 20
"""The deepest stock model nests 6 modules."""

_MODULE = "module"
_AVERAGED = "n_averaged"
"""How many networks an AveragedModel of torch.optim.swa_utils has averaged; it lies beside their mean."""
_MOST_WRAPPERS = 6
_MOST_SETS = 8
_DEEPEST_SET = 3
_FEWEST_TENSORS = 4
_NO_MODEL = "holds neither a whole model nor a state_dict"


@dataclass(frozen=True)
class Weights:
    """Named tensors of a file in its order and, when it holds a whole model, the model's root object.

    ``wrapper`` is the DataParallel that the model was saved in, if it was; names are those without it. For bare weights
    ``prefix`` is what all names began with and was taken away, and ``entry`` the place in the checkpoint they are from.
    """

    claims: dict[str, TensorClaim]
    root: Instance | None
    wrapper: Instance | None = None
    prefix: str = ""
    entry: str = ""


def find_weights(content: PickleContent) -> list[Weights]:
    """The weights of a whole module, of a state dict, or of each state dict in a checkpoint's dictionary; at least one.

    Raises Refusal where there are none, and for a module that comes with anything but stock classes.
    """
    root = content.root
    if isinstance(root, Instance):
        return [_of_module(root, content.foreign)]
    if not isinstance(root, dict) or not root:
        raise Refusal(f"{_NO_MODEL}; {STATE_DICT_MEND}")
    if _is_state(root):
        return [_of_state("", root)]
    states = _states(root)
    modules = {str(key): value for key, value in root.items() if isinstance(value, Instance) and _is_network(value)}
    if len(modules) + bool(states) > 1:
        raise several([*modules, *(place for place, _ in states)])
    if modules:
        return [_of_module(module, content.foreign) for module in modules.values()]
    if states:
        return _different([_of_state(place, state) for place, state in states])
    odd = next((name for name, value in root.items() if not isinstance(value, TensorClaim)), next(iter(root)))
    what = "has no text as its name" if isinstance(root[odd], TensorClaim) else "is not a tensor"
    raise Refusal(f"{_NO_MODEL} (its entry {quote(odd)} {what}); {STATE_DICT_MEND}")


def several(places: Sequence[str]) -> Refusal:
    """Why a checkpoint is refused in which several entries are networks: another reader would take another one."""
    return Refusal(
        f"holds more than one network, as {quote(places[0])} and {quote(places[1])}; save the one that is used by "
        f"itself, as in torch.save(checkpoint[...], FILE)"
    )


def _of_module(root: Instance, foreign: Refusal | None) -> Weights:
    if foreign:
        raise foreign
    wrapper = root if root.kind == DATA_PARALLEL else None
    root = _wrapped(wrapper) if wrapper else root
    claims: dict[str, TensorClaim] = {}
    _walk(root, "", claims, set(), 0)
    return Weights(claims, root, wrapper)


def _is_network(value: Instance) -> bool:
    """Whether an object is a module with others inside, which a loss function is not."""
    return bool((value.state or {}).get("_modules"))


def _is_state(value: dict[object, object]) -> bool:
    return bool(value) and all(isinstance(key, str) and isinstance(item, TensorClaim) for key, item in value.items())


def _states(root: dict[object, object]) -> list[tuple[str, dict[object, object]]]:
    """Place and content of the state dicts inside a checkpoint, each set of tensors once, level by level.

    An optimizer's tensors and a loss's are no networks: they are few, or have no layers' names.
    """
    found: list[tuple[str, dict[object, object]]] = []
    seen, level = {id(root)}, [("", root)]
    for _ in range(_DEEPEST_SET):
        inside: list[tuple[str, dict[object, object]]] = []
        for place, holder in level:
            for key, value in holder.items():
                if isinstance(value, dict) and id(value) not in seen:  # one may be mentioned very often
                    seen.add(id(value))
                    inside.append((f"{place}.{quote(key)[1:-1]}" if place else quote(key)[1:-1], value))
        level = []
        for place, value in inside:
            if not _is_state(value):
                level.append((place, value))
            elif len(value) >= _FEWEST_TENSORS and any("." in str(name) for name in value):
                found.append((place, value))
    return found[:_MOST_SETS]


def _different(sets: list[Weights]) -> list[Weights]:
    """The same tensors under a second name are no second network."""
    found: dict[frozenset[object], Weights] = {}
    for weights in sets:
        same = frozenset((name, *vars(claim).values()) for name, claim in weights.claims.items())
        found.setdefault(same, weights)
    return list(found.values())


def _of_state(entry: str, state: dict[object, object]) -> Weights:
    """Names as they were before a wrapper; its prefix is only taken away where every name has it."""
    claims, prefix = {str(name): value for name, value in state.items() if isinstance(value, TensorClaim)}, ""
    for _ in range(_MOST_WRAPPERS):
        first = _common(claims)
        if first:
            claims = {name.removeprefix(first): claim for name, claim in claims.items() if name.startswith(first)}
            prefix += first
    return Weights(claims, None, prefix=prefix, entry=entry)


def _common(claims: dict[str, TensorClaim]) -> str:
    """The first part of all names with its dot, where they share it and have more; else nothing."""
    names = [name for name, claim in claims.items() if name != _AVERAGED or claim.shape]
    first, dot, _ = names[0].partition(".") if names else ("", "", "")
    if len(names) != len(claims) and first != _MODULE:
        return ""
    return first + dot if dot and all(name.startswith(f"{first}.") and name != f"{first}." for name in names) else ""


def _wrapped(wrapper: Instance) -> Instance:
    inside = members(wrapper, "_modules")
    model = inside.get("module")
    if not isinstance(model, Instance) or len(inside) != 1:
        raise Refusal("has a DataParallel that does not hold exactly one model")
    return model


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
