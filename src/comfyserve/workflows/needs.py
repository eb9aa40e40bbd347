"""What a backend must have to run a graph: node classes, models, values that not all take.

Jobs with the same needs make a pool; who can run one of them can run all.

>>> needs = Needs(("KSampler", "SaveImage"), (("CheckpointLoaderSimple", "ckpt_name", "a.ckpt"),))
>>> Needs.from_json(needs.to_json()) == needs
True
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Self

_POOL_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Needs:
    """What a graph asks of a backend.

    *classes* are node classes in order, *choices* the values that some lists of choices must
    hold: node class, input, value. Both are sorted, so that equal needs are equal.
    """

    classes: tuple[str, ...] = ()
    choices: tuple[tuple[str, str, str], ...] = ()

    @property
    def pool(self) -> str:
        """The name of the pool of all jobs that need just this; empty where nothing is needed."""
        if not self.classes and not self.choices:
            return ""
        return hashlib.blake2b(self.to_json().encode(), digest_size=_POOL_BYTES).hexdigest()

    def to_json(self) -> str:
        """As a text to be kept, the same for the same needs."""
        return json.dumps([self.classes, self.choices], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` made."""
        classes, choices = json.loads(text)
        return cls(tuple(classes), tuple((node, name, value) for node, name, value in choices))


NOTHING: Final = Needs()
"""What any backend has."""
