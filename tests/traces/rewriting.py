"""Puts the client's own ids in the place of the recorded ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ID_KEYS = frozenset({"prompt_id", "client_id", "sid"})
_LONG = 32
"""Ids as long as a UUID are found anywhere; short ones only where an id is meant."""


def rewritten(value: Any, ids: Mapping[str, str]) -> Any:
    """A copy of a JSON value with every id of *ids* replaced: as values, as keys, in texts."""
    match value:
        case str():
            return _in_text(value, ids)
        case list():
            return [rewritten(item, ids) for item in value]
        case dict():
            return {_key(k, v, ids): _value(k, v, ids) for k, v in value.items()}
        case _:
            return value


def rewritten_frame(frame: bytes, ids: Mapping[str, str]) -> bytes:
    """A copy of a binary frame: an event 4 head gets the new ids and its new length."""
    if frame[:4] != b"\0\0\0\4":
        return frame
    length = int.from_bytes(frame[4:8], "big")
    head = json.dumps(rewritten(json.loads(frame[8 : 8 + length]), ids)).encode()
    return frame[:4] + len(head).to_bytes(4, "big") + head + frame[8 + length :]


def rewritten_entry(entry: dict[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a history entry; its own id sits in a list, where no key tells what it is."""
    copy: dict[str, Any] = rewritten(entry, ids)
    old = entry["prompt"][1]
    copy["prompt"][1] = ids.get(old, old)
    return copy


def _value(key: str, value: Any, ids: Mapping[str, str]) -> Any:
    if key in _ID_KEYS and isinstance(value, str):
        return ids.get(value, value)
    return rewritten(value, ids)


def _key(key: str, value: Any, ids: Mapping[str, str]) -> str:
    # only history is keyed by job ids; a node may well be called "12345"
    is_entry = isinstance(value, dict) and "outputs" in value and "status" in value
    return ids.get(key, key) if is_entry else _in_text(key, ids)


def _in_text(text: str, ids: Mapping[str, str]) -> str:
    for old, new in ids.items():
        if len(old) >= _LONG and old in text:
            text = text.replace(old, new)
    return text
