"""How a comfyserve is set up: defaults, then comfyserve.toml, then the environment, then flags.

Each setting is one field of `Settings`; what it means stands beside it, and `described` lists all.
In the file a setting has its own name, in the environment its name in capitals behind `PREFIX`.
Paths in the file are relative to the file's folder.

>>> load(file=None, environment={PREFIX + "QUEUE_SIZE": "5"}).queue_size
5
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from comfyserve.errors import did_you_mean
from comfyserve.refusals import SettingsInvalid
from comfyserve.settings import values

PREFIX: Final = "COMFYSERVE_"
FILE_NAME: Final = "comfyserve.toml"

# Told in the environment too, but no settings of a server: who calls one reads them.
_OTHERS: Final = frozenset({"server", "token", "backend_token"})


def _told(
    kind: str,
    help: str,
    least: float = 0,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Mapping[str, object]:
    return {"kind": kind, "help": help, "least": least, "most": most, "choices": choices}


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """One ComfyUI: its address, and what opens its door.

    In the file it is a table: ``[[backends]]`` with `url`, and perhaps `headers`, `token` and
    `verify_tls`. Elsewhere its address is enough.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)
    verify_tls: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Durations are seconds, sizes bytes; texts such as ``7d`` or ``20 GB`` are
    understood where they come from a file, the environment or a flag."""

    data: Path = field(
        default=Path(".comfyserve"),
        metadata=_told("path", "The folder that jobs, assets and all else is kept in."),
    )
    workflows: Path | None = field(
        default=None,
        metadata=_told("path", "The folder whose workflow files are served, each by its name."),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=_told("host", "The address to listen on; the default is this machine's own."),
    )
    port: int = field(
        default=8189,
        metadata=_told("count", "The port to listen on; 0 takes a free one.", 0, 65535),
    )
    backends: tuple[BackendSettings, ...] = field(
        default=(),
        metadata=_told("backends", "The ComfyUI servers that run the jobs."),
    )
    insecure: bool = field(
        default=False,
        metadata=_told("flag", "Listen where others reach it, though nothing asks for a key."),
    )
    public_url: str | None = field(
        default=None,
        metadata=_told("url", "The address that callers know this server by."),
    )
    trusted_proxies: tuple[str, ...] = field(
        default=(),
        metadata=_told("networks", "The addresses whose forwarded headers are believed."),
    )
    allow_origins: tuple[str, ...] = field(
        default=(),
        metadata=_told("origins", "The sites whose pages may use this server."),
    )
    allow_hosts: tuple[str, ...] = field(
        default=(),
        metadata=_told(
            "hosts",
            "The names it may be asked by, besides this machine's, `host` and `public_url`.",
        ),
    )
    open_graphs: bool = field(
        default=False,
        metadata=_told(
            "flag", "Let callers without a key run graphs of their own though others reach it."
        ),
    )
    allow_nodes: tuple[str, ...] = field(
        default=(),
        metadata=_told("patterns", "The node classes that graphs of callers may use; all if none."),
    )
    deny_nodes: tuple[str, ...] = field(
        default=(),
        metadata=_told("patterns", "The node classes that graphs of callers may not use."),
    )
    url_inputs: bool = field(
        default=True,
        metadata=_told("flag", "Take inputs by address, and fetch what is there."),
    )
    url_hosts: tuple[str, ...] = field(
        default=(),
        metadata=_told(
            "places", "Hosts and networks that inputs may come from though they are not public."
        ),
    )
    url_timeout: float = field(
        default=30.0,
        metadata=_told("duration", "How long fetching one input by its address may take.", 1),
    )
    link_lifetime: float = field(
        default=3600.0,
        metadata=_told("duration", "How long a link to an asset opens it without a key.", 60),
    )
    body_cap: int = field(
        default=32 * 2**20, metadata=_told("size", "How large a JSON body may be.", 1024)
    )
    max_streams: int = field(
        default=256,
        metadata=_told(
            "count", "How many event streams a caller may have open, and how many sockets.", 1
        ),
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
        metadata=_told(
            "size",
            "How much all kept bytes may take before uploads and jobs are refused; `none` for no "
            "limit.",
            1,
        ),
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
    warm_bonus: float = field(
        default=30.0,
        metadata=_told(
            "duration", "How far a job may go ahead because its model is loaded already."
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
    grace: float = field(
        default=30.0,
        metadata=_told("duration", "How long running jobs may take to end when it is stopped."),
    )
    keep_temp: bool = field(
        default=False,
        metadata=_told("flag", "Keep temporary outputs though a job has others."),
    )
    log_level: str = field(
        default="info",
        metadata=_told(
            "choice",
            "The least that is worth a line: `debug`, `info`, `warning` or `error`.",
            choices=("debug", "info", "warning", "error"),
        ),
    )
    log_json: bool = field(
        default=False, metadata=_told("flag", "Write each line of the log as a JSON document.")
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
    read: dict[str, object] = {}
    for source, found in _sources(file, environment or {}, flags or {}, problems):
        for name, given in found.items():
            known = _KNOWN.get(name)
            if known is None:
                hint = did_you_mean(name, _KNOWN)
                problems.append(f"{source} has {name!r}, which is no setting.{hint}")
                continue
            try:
                read[name] = _read(given, _FIELDS[name])
            except (ValueError, OverflowError) as error:
                seen = "" if known.kind == "backends" else f" is {given!r}, but"
                problems.append(f"{source}: {name}{seen or ':'} {_ended(error)}")
    if problems:
        raise SettingsInvalid(problems)
    return Settings(**_beside(file, read, flags or {}, environment or {}))


_KNOWN: Final = {one.name: one for one in described()}
_FIELDS: Final = {one.name: one for one in fields(Settings)}


def _ended(error: Exception) -> str:
    sentence = str(error)
    return sentence if sentence.endswith("?") else f"{sentence}."


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
    read: dict[str, object],
    flags: Mapping[str, object],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """The values, with paths that came from the file made relative to the file's folder."""
    moved: dict[str, object] = {}
    for name, given in read.items():
        elsewhere = flags.get(name) is not None or f"{PREFIX}{name.upper()}" in environment
        if file is not None and isinstance(given, Path) and not elsewhere:
            moved[name] = file.parent / given
    return read | moved


def _read(given: object, one: Field[Any]) -> object:
    if one.default is None and isinstance(given, str) and given.strip().lower() == "none":
        return None
    match one.metadata["kind"]:
        case "path":
            return values.path(given)
        case "duration":
            return _within(values.duration(given), one)
        case "size":
            return int(_within(values.size(given), one))
        case "count":
            return int(_within(values.count(given), one))
        case "flag":
            return values.flag(given)
        case "choice":
            return values.choice(given, one.metadata["choices"])
        case "host":
            return values.host(given)
        case "url":
            return values.url(given)
        case "networks":
            return values.each(given, values.network)
        case "origins":
            return values.each(given, values.origin)
        case "hosts":
            return values.each(given, values.allowed_host)
        case "patterns":
            return values.each(given, values.pattern)
        case "places":
            return values.each(given, values.place)
        case _:
            return _backends(given)


def _within(number: float, one: Field[Any]) -> float:
    least, most = one.metadata["least"], one.metadata["most"]
    if number < least:
        raise ValueError(f"it must be at least {least:g}")
    if most is not None and number > most:
        raise ValueError(f"it must be at most {most:g}")
    return number


def _backends(given: object) -> tuple[BackendSettings, ...]:
    """Tables of the file, or addresses; no message repeats them, for they may hold secrets."""
    if isinstance(given, list | tuple) and any(isinstance(one, Mapping) for one in given):
        backends = tuple(_backend(one) for one in given)
    else:
        backends = tuple(BackendSettings(one) for one in values.each(given, values.backend_url))
    if len({one.url for one in backends}) < len(backends):
        raise ValueError("each address may be there once")
    return backends


def _backend(given: object) -> BackendSettings:
    if not isinstance(given, Mapping):
        return BackendSettings(values.backend_url(given))
    known = [one.name for one in fields(BackendSettings)]
    for name in given:
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ValueError(f"a backend has no {name!r}.{hint}")
    return BackendSettings(
        values.backend_url(given.get("url", "")),
        values.headers(given.get("headers", {})),
        None if given.get("token") is None else values.text(given["token"]),
        values.flag(given.get("verify_tls", True)),
    )
