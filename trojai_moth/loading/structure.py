"""From the symbols of a pickle to named weights: what state_dict() would have said, without any module existing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
_OF_CHANNELS = ("mean", "std")
_MOST_WRAPPERS = 6
_MOST_SETS = 8
_DEEPEST_SET = 3
_FEWEST_TENSORS = 4
_STATE_NAMES = frozenset({"state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"})
_MOST_VISITS = 50_000
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


def find_weights(content: PickleContent, entry: str | None = None, *, any_class: bool = False) -> list[Weights]:
    """The weights of a whole module, of a state dict, or of each state dict in a checkpoint's dictionary; at least one.

    ``entry`` is the one that is wanted: its place in the checkpoint, or the first part of its names where several
    networks share one state dict. ``any_class`` reads modules of unknown classes as well, for the tensors that they
    name. Raises Refusal where there are none, and else for a module that comes with anything but stock classes.
    """
    root = content.root
    if isinstance(root, Instance):
        sets = [_of_module("", root, content.foreign, any_class)]
    elif not isinstance(root, dict) or not root:
        raise Refusal(f"{_NO_MODEL}; {STATE_DICT_MEND}")
    elif _is_state(root):
        sets = [_of_state("", root)]
    else:
        sets = _in_checkpoint(root, content.foreign, entry, any_class)
    return sets if entry is None else [_chosen(sets, entry)]


def _in_checkpoint(
    root: dict[object, object], foreign: Refusal | None, entry: str | None, any_class: bool
) -> list[Weights]:
    states = _states(root, entry)
    modules = {
        quote(key)[1:-1]: value for key, value in root.items() if isinstance(value, Instance) and _is_network(value)
    }
    places = [*modules, *(place for place, _ in states)]
    if not any_class and entry is None and len(modules) + bool(states) > 1:
        raise several(places)
    found = []
    for place, module in modules.items():
        if any_class or entry in (None, place):
            try:
                found.append(_of_module(place, module, foreign, any_class))
            except Refusal:
                if not states or entry == place:
                    raise
    if found or states:
        return _different([*found, *(_of_state(place, state) for place, state in states)])
    if places:
        raise _no_entry(entry, places)
    odd = next((name for name, value in root.items() if not isinstance(value, TensorClaim)), next(iter(root)))
    what = "has no text as its name" if isinstance(root[odd], TensorClaim) else "is not a tensor"
    raise Refusal(f"{_NO_MODEL} (its entry {quote(odd)} {what}); {STATE_DICT_MEND}")


def _chosen(sets: list[Weights], entry: str) -> Weights:
    """The set at a place, or the part of one whose names begin with what the entry's name has more than its place."""
    for weights in sets:
        if weights.entry == entry:
            return weights
    parts = {part.entry: part for weights in sets for part in parts_of(weights)}
    if entry not in parts:
        raise _no_entry(entry, [*filter(None, (weights.entry for weights in sets)), *parts])
    return parts[entry]


def normalise(names: Iterable[str]) -> bool:
    """Whether all of these weights are those of a layer that normalises images."""
    return all(name.rpartition(".")[2] in _OF_CHANNELS for name in names)


def last_length(claims: Mapping[str, TensorClaim]) -> int | None:
    """The length of the last weight, which is the number of outputs where the last layer comes last; None without."""
    return next((claim.shape[0] for claim in reversed([*claims.values()]) if len(claim.shape) > 1), None)


def _no_entry(entry: str | None, places: Sequence[str]) -> Refusal:
    if not places:
        return Refusal(f"has no entry {quote(entry)}, since it holds its weights by themselves; leave out --entry")
    return Refusal(f"has no entry {quote(entry)}; give --entry with one of those it has: {_listed(places)}")


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _MOST_SETS} more" if len(places) > _MOST_SETS else ""
    return ", ".join(map(quote, places[:_MOST_SETS])) + more


def parts_of(weights: Weights) -> list[Weights]:
    """The sets of weights that the first part of their names tells apart, each without it; none where all share it."""
    groups: dict[str, dict[str, TensorClaim]] = {}
    for name, claim in weights.claims.items():
        first, dot, rest = name.partition(".")
        if rest:
            groups.setdefault(first + dot, {})[rest] = claim
    if len(groups) < 2:
        return []
    place = f"{weights.entry}." if weights.entry else ""
    return [
        Weights(claims, None, prefix=weights.prefix + first, entry=place + quote(first[:-1])[1:-1])
        for first, claims in groups.items()
    ]


def several(places: Sequence[str]) -> Refusal:
    """Why a checkpoint is refused in which several entries are networks: another reader would take another one."""
    return Refusal(
        f"holds more than one network, as {_listed(places)}; say which one is used with --entry NAME, or save it by "
        f"itself, as in torch.save(checkpoint[...], FILE)"
    )


def _of_module(place: str, root: Instance, foreign: Refusal | None, any_class: bool) -> Weights:
    if foreign and not any_class:
        raise foreign
    wrapper = root if root.kind == DATA_PARALLEL else None
    root = _wrapped(wrapper) if wrapper else root
    return Weights(_named_tensors(root, once=not any_class), root, wrapper, entry=place)


def _is_network(value: Instance) -> bool:
    """Whether an object is a module with others inside, which a loss function is not."""
    return bool((value.state or {}).get("_modules"))


def _is_state(value: dict[object, object]) -> bool:
    return bool(value) and all(isinstance(key, str) and isinstance(item, TensorClaim) for key, item in value.items())


def _states(root: dict[object, object], entry: str | None = None) -> list[tuple[str, dict[object, object]]]:
    """Place and content of the state dicts inside a checkpoint, each set of tensors once, level by level.

    An optimizer's tensors and a loss's are no networks: they are few, or have no layers' names. What the user named is
    taken whatever it holds.
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
            elif place == entry or _is_named(place) or _has_layers(value):
                found.append((place, value))
    return sorted(found, key=lambda pair: pair[0] != entry)[:_MOST_SETS]


def _is_named(place: str) -> bool:
    """Whether an entry is called as weights are, so that even one tensor is a network."""
    return place.rpartition(".")[2] in _STATE_NAMES


def _has_layers(state: dict[object, object]) -> bool:
    return len(state) >= _FEWEST_TENSORS and any("." in str(name) for name in state)


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


def _named_tensors(root: Instance, *, once: bool) -> dict[str, TensorClaim]:
    """The tensors of a module and of those inside, by name; where ``once``, no module may be used twice."""
    claims: dict[str, TensorClaim] = {}
    seen: set[int] = set()
    pending, visits = [(root, "", 0)], 0
    while pending:
        module, prefix, depth = pending.pop()
        visits += 1
        if depth > MAX_DEPTH or visits > _MOST_VISITS or (once and id(module) in seen):
            raise Refusal(f"nests its modules endlessly or uses one twice (at {quote(prefix)})")
        seen.add(id(module))
        for name, value in {**members(module, "_parameters"), **members(module, "_buffers")}.items():
            if isinstance(value, TensorClaim):
                claims[prefix + name] = value
            elif value is not None:
                raise Refusal(f"has something that is not a tensor in place of the weight {quote(prefix + name)}")
        children = members(module, "_modules").items()
        for name, child in children:
            if child is not None and not isinstance(child, Instance):
                raise Refusal(f"has something that is not a module in place of {quote(prefix + name)}")
        inside = [(child, f"{prefix}{name}.", depth + 1) for name, child in children if isinstance(child, Instance)]
        pending += reversed(inside)
    return claims


def members(module: Instance, group: str) -> dict[str, object]:
    """The dictionary ``_parameters``, ``_buffers`` or ``_modules`` of a module; raises Refusal when it is not one."""
    found = (module.state or {}).get(group)
    if not isinstance(found, dict) or not all(isinstance(name, str) and "." not in name for name in found):
        raise Refusal(f"has a {module.kind.name[:60]} without a proper {group}")
    return found  # type: ignore[return-value]
