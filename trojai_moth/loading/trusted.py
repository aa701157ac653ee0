"""The one place where a file's own code may run: torch's unpickler, for those who asked for it on the command line.

Nothing but :func:`trusting_pickles` turns it on; the command line does so for ``--trust-pickle``, and no configuration,
round or environment variable can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, BinaryIO, cast

from .own_code import folder_on_path
from .refusal import Refusal, quote
from .steady_file import SteadyFile

if TYPE_CHECKING:
    from torch import nn

RISK = (
    "--trust-pickle: a model file that is no stock network is handed to torch's own unpickler, which runs whatever "
    "code the file contains, with your rights. Use it only for files whose maker you trust."
)
_trusted: ContextVar[bool] = ContextVar("trust_pickle", default=False)


@contextmanager
def trusting_pickles() -> Iterator[None]:
    """Inside, files that are no stock networks are unpickled, which runs whatever code they contain."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def pickles_are_trusted() -> bool:
    """Whether this is inside :func:`trusting_pickles`."""
    return _trusted.get()


def trust_of_run() -> dict[str, bool]:
    """What a run's identity says of it: a run that ran files cannot be continued as one that does not."""
    return {"trust_pickle": True} if pickles_are_trusted() else {}


def _mend(error: Exception) -> str:
    """What to do where a class is not found, by where it should be."""
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    found = re.search(r"Can't get attribute '([^']+)' on <module '([^']+)'", str(error))
    name, home = found.groups() if found else ("", "")
    if home.endswith("__main__"):  # which knows itself by another name where it is a package's
        return (
            f"{quote(name)} was defined in the program or notebook that saved it; move it into a module of its own, "
            "import it from there, save the model again, and give the command in that module's folder"
        )
    if home:
        return f"the module {quote(home)} that is found here is another one; put the right one's folder on PYTHONPATH"
    if missing:
        place = missing.partition(".")[0]
        return (
            f"put the folder of {quote(place)[1:-1]}.py on PYTHONPATH or give the command there, or install the "
            f"package {quote(place)}"
        )
    return "install the packages it was made with"


def unpickle_network(file: SteadyFile) -> nn.Module:
    """Run the file and return the network it makes, on the CPU, in float32 and evaluation mode; raises Refusal."""
    import torch
    from torch import nn

    file.seek(0)
    try:
        with folder_on_path():
            root = torch.load(cast(BinaryIO, file), map_location="cpu", weights_only=False)
    except Exception as error:
        raise Refusal(
            f"cannot be unpickled either ({type(error).__name__}: {quote(error, 100)}); {_mend(error)}"
        ) from None
    network = root.module if isinstance(root, nn.DataParallel) else root
    if not isinstance(network, nn.Module):
        raise Refusal(f"holds a {quote(type(root).__name__)}, not a network; save the whole module")
    for name, value in network.state_dict().items():
        if isinstance(value, torch.Tensor) and not torch.isfinite(value).all():
            raise Refusal(f"has infinite or undefined numbers in {quote(name)}; train or fetch it again")
    return network.float().eval()
