"""How much a JSON text may hold: each value takes many times the letters that it came in.

>>> holds_more_than(4, '{"a": [1, 2, 3]}')
False
>>> holds_more_than(4, '{"a": [1, 2, 3, 4]}')
True
"""

from __future__ import annotations

from typing import Final

MOST_VALUES: Final = 2_000_000
"""Values in a workflow's file, more than any has."""


def holds_more_than(most: int, text: str | bytes) -> bool:
    """Whether the JSON in *text* may have more than *most* values, without reading it.

    Signs inside of texts count as well, so *most* is far more than anybody needs.
    """
    if len(text) <= most:
        return False
    if isinstance(text, bytes):
        return sum(text.count(sign) for sign in (b",", b"[", b"{")) > most
    return sum(text.count(sign) for sign in (",", "[", "{")) > most
