"""Which images suit a round, where that is not said."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import MissingDependencyError
from ..synthesis.datagen import datagen
from .model_folder import ModelFolder, SkippedModel

_COMPOSED = "Images: composed from the models' foregrounds; --data examples takes those that come with the models."
_NO_SIGNS = "Images: those that come with the models; there are no foregrounds to compose more from."
_NO_TROJAI = (
    "Images: the few that come with the models, on which little can be judged. More are composed from their "
    "foregrounds where trojai is installed: pip install 'trojai-moth[datagen]' && pip install --no-deps trojai==0.2.23"
)


def images_for(cases: Sequence[ModelFolder | SkippedModel]) -> tuple[str, str]:
    """The source of images that suits a round, and a line that says so.

    composed where more than half of the models have foregrounds and ``trojai`` is there, else examples. Of few
    examples no clean network can be trained, and without one hardly anything is cleared (docs/history/blind.md).
    """
    models = [case for case in cases if isinstance(case, ModelFolder)]
    if 2 * sum(case.names.signed for case in models) <= len(models):
        return "examples", _NO_SIGNS
    try:
        datagen()
    except MissingDependencyError:
        return "examples", _NO_TROJAI
    return "composed", _COMPOSED
