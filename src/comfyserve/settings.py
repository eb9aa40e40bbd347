"""How a comfyserve is set up: defaults, then comfyserve.toml, then the environment, then flags.

Each setting is one field of `Settings`; what it means stands beside it, and `described` lists all.
In the file a setting has its own name, in the environment its name in capitals behind `PREFIX`.
Paths in the file are relative to the file's folder.

>>> load(file=None, environment={PREFIX + "QUEUE_SIZE": "5"}).queue_size
5
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from comfyserve.errors import did_you_mean
from comfyserve.refusals import SettingsInvalid

PREFIX: Final = "COMFYSERVE_"
FILE_NAME: Final = "comfyserve.toml"

# Told in the environment too, but no settings of a server: who calls one reads them.
_OTHERS: Final = frozenset({"server", "token"})

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


def _told(kind: str, help: str, least: float = 0) -> Mapping[str, object]:
    return {"kind": kind, "help": help, "least": least}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Durations are seconds, sizes bytes; texts such as ``7d`` or ``20 GB`` are
    understood where they come from a file, the environment or a flag."""

    data: Path = field(
        default=Path(".comfyserve"),
        metadata=_told("path", "The folder that jobs, assets and all else is kept in."),
    )
    retention: float = field(
        default=7 * 86400.0,
        metadata=_told("duration", "How long a job and its outputs are kept after its end.", 60),
    )
    asset_retention: float = field(
        default=7 * 86400.0,
        metadata=_told(
            "duration",
            "How long an uploaded asset is kept if its caller says nothing.",
            60,
        ),
    )
    idempotency_retention: float = field(
        default=86400.0,
        metadata=_told("duration", "How long an idempotency key stays used up.", 60),
    )
    disk_cap: int | None = field(
        default=None,
        metadata=_told("size", "How much all kept bytes may take; `none` for no limit.", 1),
    )
    upload_cap: int = field(
        default=100 * 2**20, metadata=_told("size", "How large one uploaded asset may be.", 1)
    )
    queue_size: int = field(
        default=1000, metadata=_told("count", "How many jobs may wait at once.", 1)
    )
    queue_timeout: float | None = field(
        default=None,
        metadata=_told(
            "duration", "How long a job may wait before it expires; `none` for no limit.", 1
        ),
    )
    timeout: float | None = field(
        default=None,
        metadata=_told(
            "duration", "How long a job may run before it fails; `none` for no limit.", 1
        ),
    )
    attempts: int = field(
        default=3,
        metadata=_told("count", "How often a job is tried when its backend is lost meanwhile.", 1),
    )
    lease: float = field(
        default=30.0,
        metadata=_told(
            "duration", "How long a job is held without a sign of life from who runs it.", 1
        ),
    )
    busy_timeout: float = field(
        default=10.0,
        metadata=_told(
            "duration", "How long a write waits while another program locks the database."
        ),
    )
    blob_grace: float = field(
        default=3600.0,
        metadata=_told("duration", "How long bytes that nothing refers to are kept."),
    )


@dataclass(frozen=True, slots=True)
class Description:
    """A setting as it is told to people."""

    name: str
    variable: str
    kind: str
    default: object
    help: str


def described() -> tuple[Description, ...]:
    """Every setting, in the order of `Settings`."""
    return tuple(
        Description(
            one.name,
            PREFIX + one.name.upper(),
            one.metadata["kind"],
            one.default,
            one.metadata["help"],
        )
        for one in fields(Settings)
    )


def load(
    *,
    file: Path | None = Path(FILE_NAME),
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """The settings that hold; a later source overrides an earlier one, setting by setting.

    A *file* that is not there sets nothing. Of *flags*, those that are None were not given.
    Raises `SettingsInvalid` with everything that is wrong.
    """
    problems: list[str] = []
    values: dict[str, object] = {}
    for source, found in _sources(file, environment or {}, flags or {}, problems):
        for name, given in found.items():
            known = _KNOWN.get(name)
            if known is None:
                hint = did_you_mean(name, _KNOWN)
                problems.append(f"{source} has {name!r}, which is no setting.{hint}")
                continue
            try:
                values[name] = _read(given, known.kind, _LEAST[name], known.default is None)
            except (ValueError, OverflowError) as error:
                problems.append(f"{source}: {name} is {given!r}, but {error}.")
    if problems:
        raise SettingsInvalid(problems)
    return Settings(**_beside(file, values, flags or {}, environment or {}))


_KNOWN: Final = {one.name: one for one in described()}
_LEAST: Final[Mapping[str, float]] = {one.name: one.metadata["least"] for one in fields(Settings)}


def _sources(
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
    problems: list[str],
) -> Iterator[tuple[str, Mapping[str, object]]]:
    if file is not None:
        yield str(file), _read_file(file, problems)
    yield (
        "The environment",
        {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in _OTHERS
        },
    )
    yield "The command line", {name: value for name, value in flags.items() if value is not None}


def _read_file(file: Path, problems: list[str]) -> Mapping[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(f"{file} cannot be read: {error.strerror or error}.")
    except UnicodeDecodeError:
        problems.append(f"{file} is no UTF-8 text.")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{file} is not valid TOML: {error}.")
    return {}


def _beside(
    file: Path | None,
    values: dict[str, object],
    flags: Mapping[str, object],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """The values, with a path that came from the file made relative to the file's folder."""
    elsewhere = flags.get("data") is not None or f"{PREFIX}DATA" in environment
    data = values.get("data")
    if file is not None and isinstance(data, Path) and not elsewhere:
        return {**values, "data": file.parent / data}
    return values


def _read(given: object, kind: str, least: float, may_be_none: bool) -> object:
    if may_be_none and isinstance(given, str) and given.strip().lower() == "none":
        return None
    match kind:
        case "path":
            return _path(given)
        case "duration":
            return _at_least(_amount(given, _UNITS, "a duration such as 30s, 5m, 12h or 7d"), least)
        case "size":
            return int(_at_least(_amount(given, _SIZES, "a size such as 500 MB or 20 GiB"), least))
        case _:
            return int(_at_least(_whole(given), least))


def _path(given: object) -> Path:
    if isinstance(given, Path):
        return given
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise ValueError("a folder is needed")
    return Path(given).expanduser()


def _whole(given: object) -> float:
    number = _amount(given, {"": 1}, "a whole number")
    if number != int(number):
        raise ValueError("a whole number is needed")
    return number


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


def _at_least(number: float, least: float) -> float:
    if number < least:
        raise ValueError(f"it must be at least {least:g}")
    return number
