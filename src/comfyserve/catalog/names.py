"""The names of workflows: made of file names, and fit for addresses, shells and any disk.

>>> name_of("Grüße aus Köln (final)")
'Grusse-aus-Koln-final'
>>> name_of("flux.1-dev_v2")
'flux.1-dev_v2'
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

from comfyserve.refusals import WorkflowNameRefused

MOST_LETTERS: Final = 120
"""The longest name that can be published."""

NAMELESS: Final = "workflow"
"""The name of a file that has no letter or digit in its own."""


@lru_cache(maxsize=50_000)
def name_of(stem: str) -> str:
    """The name of a workflow whose file is called *stem*.

    Letters and digits of any script stay, those of the Latin one without their accents, and so do
    ``-``, ``_`` and ``.`` inside; whatever else there is becomes one ``-``. Different stems may
    have one name.
    """
    letters = [_plain(letter) for letter in unicodedata.normalize("NFC", stem)]
    words = "".join(letters).split()
    name = "-".join(part for word in words if (part := word.strip("-."))).strip("-.")
    if not name:
        return NAMELESS
    device, *rest = name.split(".", 1)
    return ".".join([f"{device}_", *rest]) if device.upper() in _DEVICES else name


def key_of(name: str) -> str:
    """What two names share that differ only in case, which not every disk tells apart."""
    return name.casefold()


def check_name(name: str) -> None:
    """Raise `WorkflowNameRefused` unless *name* is one that a file could have given."""
    if not name:
        raise WorkflowNameRefused(name, "It is empty.")
    if len(name) > MOST_LETTERS:
        raise WorkflowNameRefused(name, f"It is longer than {MOST_LETTERS} letters.")
    if name != (better := name_of(name)):
        raise WorkflowNameRefused(name, f"A name for the same would be {better!r}.")


def _plain(letter: str) -> str:
    """The letter as it stands in a name; a blank for what cannot stand there."""
    if letter.isascii():
        return letter if letter.isalnum() or letter in "-_." else " "
    if letter in _WRITTEN_OUT:
        return _WRITTEN_OUT[letter]
    base = unicodedata.normalize("NFKD", letter)[0]
    if base.isascii():
        return base if base.isalnum() else " "
    # Marks belong to the letter before them, as the vowels of Hindi or Thai do.
    return letter if letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc") else " "


_WRITTEN_OUT: Final = {
    **{"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE"},
    **{"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D"},
    **{"þ": "th", "Þ": "Th", "\u0131": "i"},
}


# Windows takes a file of such a name for a device, whatever its ending.
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in range(10)}
)
