"""One setting as people write it, made into what the program reads.

Every function takes what a file, the environment or a flag gave, and raises ValueError with the
end of a sentence about it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from comfyserve.errors import did_you_mean

_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SIZES: Final = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "kib": 2**10,
    "m": 10**6,
    "mb": 10**6,
    "mib": 2**20,
    "g": 10**9,
    "gb": 10**9,
    "gib": 2**30,
    "t": 10**12,
    "tb": 10**12,
    "tib": 2**40,
}
_FLAGS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?", re.ASCII)


def path(given: object) -> Path:
    """A folder; ``~`` is the person's own."""
    if isinstance(given, Path):
        return given
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise ValueError("a folder is needed")
    return Path(given).expanduser()


def duration(given: object) -> float:
    """Seconds."""
    return _amount(given, _UNITS, "a duration such as 30s, 5m, 12h or 7d")


def size(given: object) -> float:
    """Bytes."""
    return _amount(given, _SIZES, "a size such as 500 MB or 20 GiB")


def count(given: object) -> float:
    """A whole number."""
    number = _amount(given, {"": 1}, "a whole number")
    if number != int(number):
        raise ValueError("a whole number is needed")
    return number


def flag(given: object) -> bool:
    """Yes or no."""
    if isinstance(given, bool):
        return given
    try:
        return _FLAGS[str(given).strip().lower()]
    except KeyError:
        raise ValueError("true or false is needed") from None


def choice(given: object, choices: tuple[str, ...]) -> str:
    """One of *choices*, in whichever case."""
    chosen = str(given).strip().lower()
    if chosen not in choices:
        hint = did_you_mean(chosen, choices)
        raise ValueError(f"one of {', '.join(choices)} is needed{hint and '.'}{hint}")
    return chosen


def host(given: object) -> str:
    """A name or address that a machine can have, without a port."""
    text = str(given).strip().lower().strip("[]")
    if _is_ip(text) or (_HOST.fullmatch(text) and not text.startswith("*")):
        return text.rstrip(".")
    raise ValueError("a host name or IP address without a port is needed")


def url(given: object) -> str:
    """The address of a server, without a slash at its end."""
    text = str(given).strip().rstrip("/")
    parts = _split(text)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("an address without a name, a query or a fragment is needed")
    return text


def each(given: object, read: Callable[[object], str]) -> tuple[str, ...]:
    """Several values: a list, or a text with spaces or commas between them; none comes twice."""
    if isinstance(given, str):
        given = re.split(r"[\s,]+", given.strip()) if given.strip() else ()
    if not isinstance(given, list | tuple):
        raise ValueError("a list is needed")
    return tuple(dict.fromkeys(read(one) for one in given))


def network(given: object) -> str:
    """An IP address, or a range of them such as ``10.0.0.0/8``."""
    text = str(given).strip()
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an IP address nor a range such as 10.0.0.0/8"
        ) from None


def origin(given: object) -> str:
    """Where a page comes from, as browsers say it: scheme, host, and a port unless the usual."""
    text = str(given).strip().lower().rstrip("/")
    if text in ("*", "null"):
        raise ValueError(f"{text!r} would let every page in; name the origins that may")
    parts = _split(text)
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no origin such as https://app.example.org")
    usual = {"http": ":80", "https": ":443"}[parts.scheme]
    return text.removesuffix(usual)


def allowed_host(given: object) -> str:
    """A name that requests may be for; ``*.example.org`` is every name below one."""
    text = str(given).strip().lower().strip("[]")
    if _is_ip(text) or (_HOST.fullmatch(text) and text != "*."):
        return text.rstrip(".")
    raise ValueError(f"{text!r} is no host name such as gpu.example.org or *.example.org")


def pattern(given: object) -> str:
    """A name of node classes, perhaps with ``*`` and ``?`` as in file names."""
    text = str(given).strip()
    if not text or not text.isprintable():
        raise ValueError(f"{text!r} is no name or pattern such as LoadImage or Load*")
    return text


def place(given: object) -> str:
    """A host name, every name below one as ``*.example.org``, an IP address or a range of them."""
    try:
        return network(given)
    except ValueError:
        return allowed_host(given)


def backend_url(given: object) -> str:
    """The address of a ComfyUI; a name and password in it are left to whoever connects."""
    text = str(given).strip().rstrip("/")
    _split(text)
    return text


def headers(given: object) -> Mapping[str, str]:
    """Headers by name."""
    if not isinstance(given, Mapping) or not all(
        isinstance(word, str) for pair in given.items() for word in pair
    ):
        raise ValueError("headers by name, such as { X-Api-Key = '1234' }, are needed")
    return dict(given)


def text(given: object) -> str:
    """Any text but none."""
    if not isinstance(given, str) or not given.strip():
        raise ValueError("a text is needed")
    return given.strip()


def _split(text: str) -> SplitResult:
    """The parts of an http address; its words are not repeated, for it may hold a password."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or any(sign.isspace() or not sign.isprintable() for sign in text):
        raise ValueError("an address such as http://127.0.0.1:8188 is needed")
    return parts


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _amount(given: object, units: Mapping[str, int], wanted: str) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool):
        number, factor = float(given), 1
    else:
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", str(given), re.ASCII)
        unit = found[2].lower() if found else ""
        if found is None or (unit and unit not in units) or isinstance(given, bool):
            raise ValueError(f"{wanted} is needed")
        number, factor = float(found[1]), units.get(unit, 1)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{wanted} is needed")
    return number * factor
