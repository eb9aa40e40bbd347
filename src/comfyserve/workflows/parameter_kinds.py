"""The kinds of parameters by the names that people write, and a parameter made one of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comfyserve.workflows.parameters import (
    LARGEST_SEED,
    Anything,
    Audio,
    Choice,
    Flag,
    Image,
    Integer,
    Mask,
    Media,
    Number,
    Parameter,
    Seed,
    Text,
    Video,
)

KINDS: Mapping[str, type[Parameter]] = {
    kind.kind: kind
    for kind in (
        *(Text, Integer, Number, Choice, Flag, Seed),
        *(Image, Mask, Video, Audio, Media, Anything),
    )
}
"""Every class of parameter by its kind, in the order that messages list them."""


def as_kind(parameter: Parameter, kind: str) -> Parameter:
    """*parameter* as one of another *kind*, with what it knew that the new kind has too."""
    if parameter.kind == kind:
        return parameter
    made = KINDS[kind](
        name=parameter.name,
        targets=parameter.targets,
        default=parameter.default,
        label=parameter.label,
        description=parameter.description,
        advanced=parameter.advanced,
        why=parameter.why,
    )
    if isinstance(made, Number) and isinstance(parameter, Number):
        low, high, step = parameter.minimum, parameter.maximum, parameter.step
        made = replace(made, minimum=low, maximum=high, step=step)
    if isinstance(made, Seed):
        high = LARGEST_SEED if made.maximum is None else made.maximum
        return replace(made, minimum=made.minimum or 0, maximum=high)
    return made
