"""From the name of an architecture to what builds it: stock, torchvision, timm, installed packages, the user's code.

Weights are never downloaded, and code is only imported where the user named it, see loading/own_code.py.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.parameter import is_lazy

from ..core.errors import MissingDependencyError, SettingsError, one_line
from .architectures import TASK, auxiliary_of, canonical_name, factory_of
from .own_code import folder_on_path, import_factory
from .refusal import quote

GROUP = "trojai_moth.architectures"
"""Entry points of installed packages: a name, and the function that builds a network."""
TIMM = "timm:"
TIMM_MEND = "pip install 'trojai-moth[timm]'"
_CHANNELS = ("in_chans", "in_channels", "channels")
_BUILT_AS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True)
class Builder:
    """What builds a network of an architecture for as many classes and channels as it lets one choose."""

    name: str
    """As it was given."""
    make: Callable[..., object]
    classes: str = ""
    """The parameter that takes the number of classes, empty where it has none."""
    channels: str = ""
    """The parameter that takes the number of input channels, empty where it has none."""
    library: str = ""
    """torchvision or timm, whose networks are known; empty for code of others."""
    options: Mapping[str, object] = field(default_factory=dict)
    auxiliary: str = ""
    """How the names of auxiliary classifiers begin, which are only built where a file has them."""
    open: bool = False
    """Whether it has ``**kwargs``, of which only a try shows whether they take the number of classes."""

    def build(self, classes: int | None = None, channels: int | None = None, *, empty: bool = False) -> nn.Module:
        """A network on the CPU in float32 and evaluation mode, the same at each call; SettingsError says why it failed.

        Numbers are passed where the builder takes them. ``empty`` leaves out the memory of its weights if it can.
        """
        options = dict(self.options)
        if classes is not None and self.classes:
            options[self.classes] = classes
        if channels is not None and self.channels:
            options[self.channels] = channels
        if empty and self.library:
            try:
                return self._make(options, torch.device("meta"))
            except SettingsError:  # some networks compute with their weights while they are built
                pass
        return self._make(options, torch.device("cpu"))

    def having(self, names: Iterable[str]) -> Builder:
        """The same, with auxiliary classifiers where these names of weights have them."""
        if not self.auxiliary or not any(name.startswith(self.auxiliary) for name in names):
            return self
        return replace(self, options={**self.options, "aux_logits": True}, auxiliary="")

    def settled(self) -> Builder:
        """The same, with a choice of classes only where a try shows that it is taken."""
        if not self.open:
            return self
        try:
            self.build(classes=2)
        except SettingsError as error:
            if isinstance(error.__cause__, TypeError):
                return replace(self, classes="", open=False)
        return replace(self, open=False)

    def _make(self, options: Mapping[str, object], device: torch.device) -> nn.Module:
        path = nullcontext() if self.library else folder_on_path()
        try:
            with path, torch.random.fork_rng(devices=[]), device:
                torch.default_generator.manual_seed(0)
                made = self.make(**options)
        except (Exception, SystemExit) as error:  # whatever code that is not ours does
            given = ", ".join(f"{name}={value}" for name, value in options.items() if name not in self.options)
            raise SettingsError(
                f"architecture {quote(self.name)} cannot be built with ({given}): {one_line(error)}; it must need "
                "nothing but num_classes and in_channels, if it takes them"
            ) from error
        while isinstance(made, _BUILT_AS):
            made = made.module
        if not isinstance(made, nn.Module):
            raise SettingsError(
                f"architecture {quote(self.name)} makes a {quote(type(made).__name__)[1:-1]}; let it return a "
                "torch.nn.Module"
            )
        if any(is_lazy(value) for value in (*made.parameters(), *made.buffers())):
            raise SettingsError(
                f"architecture {quote(self.name)} makes layers that have no size yet; let it call the network once"
            )
        made = made if device.type == "meta" else made.to("cpu")
        return made.float().eval()


def find_builder(name: str) -> Builder:
    """What builds the architecture of this name; imports code only where :func:`allowing_architectures` says so.

    Raises SettingsError for a name that is not known, code that was not allowed or cannot be used, and
    MissingDependencyError for a name of timm where that is not installed.
    """
    if name.startswith(TIMM):
        return _of_timm(name, name.removeprefix(TIMM))
    plain = name.removeprefix(TASK)
    if ":" in plain:
        with torch.random.fork_rng(devices=[]):
            return _of_code(name, import_factory(name))
    stock = canonical_name(plain)
    factory = factory_of(stock) if stock else plain.lower()
    if factory in _torchvision_names():
        auxiliary = auxiliary_of(stock) if stock else ""
        options = {"weights": None, **({"aux_logits": False, "init_weights": False} if auxiliary else {})}
        make = torchvision.models.get_model_builder(factory)
        return Builder(name, make, "num_classes", "", "torchvision", options, auxiliary)
    registered = [entry for entry in entry_points(group=GROUP) if entry.name == plain]
    if registered:
        with torch.random.fork_rng(devices=[]):
            return _of_code(name, _registered(registered))
    return _of_timm(name, factory if stock else plain)


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)  # those of its classifiers


def _of_timm(name: str, plain: str) -> Builder:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        if name.startswith(TIMM) or canonical_name(name):
            raise MissingDependencyError(f"architecture {quote(name)} needs timm; {TIMM_MEND}") from None
        raise _unknown(name, f"; where it is one of timm, {TIMM_MEND}") from None
    # A name with a place in it would fetch a network from there.
    if not re.fullmatch(r"[A-Za-z0-9_.]+", plain) or not timm.is_model(plain):
        raise _unknown(name, "")

    def make(**options: Any) -> object:
        return timm.create_model(plain, pretrained=False, **options)

    return Builder(name, make, "num_classes", "in_chans", "timm")


def _unknown(name: str, more: str) -> SettingsError:
    known = [*_torchvision_names(), *(entry.name for entry in entry_points(group=GROUP))]
    close = difflib.get_close_matches(name[:60], known, 1)
    return SettingsError(
        f"architecture {quote(name)} is not known{f'; did you mean {close[0]}?' if close else ''}; give a name of "
        f"torchvision or timm, or package.module:factory of your own code{more}"
    )


def _registered(found: list[EntryPoint]) -> Callable[..., Any]:
    if len(found) > 1:
        homes = ", ".join(sorted(entry.dist.name if entry.dist else "unknown" for entry in found))
        raise SettingsError(
            f"two installed packages offer the architecture {quote(found[0].name)} ({homes}); uninstall one of them"
        )
    try:
        made: Any = found[0].load()
    except (Exception, SystemExit) as error:
        raise SettingsError(
            f"architecture {quote(found[0].name)} cannot be imported: {one_line(error)}; install its package again"
        ) from error
    if not callable(made):
        raise SettingsError(
            f"architecture {quote(found[0].name)} ({found[0].value}) is no function; install its package again"
        )
    return made  # type: ignore[no-any-return]


def _of_code(name: str, make: Callable[..., Any]) -> Builder:
    try:
        taken = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        taken = {}.values()
    named = {it.name for it in taken if it.kind in (it.POSITIONAL_OR_KEYWORD, it.KEYWORD_ONLY)}
    channels = next((word for word in _CHANNELS if word in named), "")
    more = any(it.kind is it.VAR_KEYWORD for it in taken) and "num_classes" not in named
    return Builder(name, make, "num_classes" if more or "num_classes" in named else "", channels, open=more)
