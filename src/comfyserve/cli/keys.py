"""`comfyserve keys`: the keys of a server, made and ended in its data folder.

No server has to run; one that does notices within a second.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from comfyserve.cli.exit_codes import FAILED
from comfyserve.cli.progress_words import printable
from comfyserve.cli.serve import Options, settings_from
from comfyserve.denials import ExtraMissing, KeyNotFound

if TYPE_CHECKING:
    from comfyserve.access import Access, Key

_HEADS: Final = ("NAME", "MAY", "RATE", "JOBS", "PRIORITY", "MADE", "USED", "")
_MOST_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a new key may; see `comfyserve.access.Key`."""

    workflows: tuple[str, ...] | None = None
    may_graphs: bool = False
    may_publish: bool = False
    is_admin: bool = False
    rate: str | None = None
    concurrent: int | None = None
    priority_max: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Which data folder a person named, itself or by a file of settings."""

    data: Path | None = None
    config: Path | None = None

    def folder(self) -> Path:
        """The folder. Raises `SettingsInvalid`."""
        return settings_from(Options({"data": self.data}, self.config)).data


async def create_key(place: Place, name: str, may: Permissions) -> None:
    """Make a key: its secret on stdout, the rest on stderr. A missing folder is made."""
    folder = place.folder()
    async with _opened(folder) as access:
        is_first = not await access.asks_for_keys()
        new = await access.create(
            name,
            workflows=may.workflows,
            may_graphs=may.may_graphs,
            may_publish=may.may_publish,
            is_admin=may.is_admin,
            rate=may.rate,
            concurrent=may.concurrent,
            priority_max=may.priority_max,
        )
    print(new.secret, flush=True)
    _say(printable(f"The key {new.key.name!r} may {_permissions(new.key)}."))
    _say("It is shown this once. Whoever has it sends it as 'Authorization: Bearer cs_...'.")
    if is_first:
        _say(f"From now on a server with its data in {_shown(folder)} asks for keys.")


async def list_keys(place: Place, *, as_json: bool) -> None:
    """Print every key, revoked ones too, without their secrets."""
    folder = place.folder()
    keys: tuple[Key, ...] = ()
    if _is_used(folder):
        async with _opened(folder) as access:
            keys = await access.list()
    if as_json:
        print(json.dumps({"keys": [_document(key) for key in keys]}, indent=2))
        return
    if not keys:
        _say(f"No keys in {_shown(folder)}: nobody is asked for one.")
        return
    for line in _table([_HEADS, *(_row(key, datetime.now(UTC)) for key in keys)]):
        print(line)


async def revoke_keys(place: Place, names: Sequence[str]) -> None:
    """End these keys; ends with `typer.Exit` 1 where one is not there."""
    folder = place.folder()
    is_any_missing = False
    async with _opened(folder) if _is_used(folder) else _none() as access:
        for name in dict.fromkeys(names):
            try:
                if access is None:
                    raise KeyNotFound(name)
                print(printable(f"{(await access.revoke(name)).name} revoked"), flush=True)
            except KeyNotFound as error:
                is_any_missing = True
                _say(printable(str(error)))
    if is_any_missing:
        raise typer.Exit(FAILED)


async def reset_keys(place: Place) -> None:
    """Forget every key, so that nobody is asked for one."""
    folder = place.folder()
    forgotten = 0
    if _is_used(folder):
        async with _opened(folder) as access:
            forgotten = await access.reset()
    _say(f"Forgot {forgotten} {'key' if forgotten == 1 else 'keys'}: nobody is asked for one now.")
    if forgotten:
        _say("What was made with them still belongs to them, so nobody sees it.")


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[Access]:
    try:
        from comfyserve.access import Access
        from comfyserve.store import Store
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "comfyserve":
            raise
        raise ExtraMissing("server", error.name) from error
    async with Store.open_beside(folder) as store:
        yield await Access.open(store)


@asynccontextmanager
async def _none() -> AsyncIterator[None]:
    yield None


def _is_used(folder: Path) -> bool:
    """Whether a server, or a key, was ever in the folder; else nothing is made by looking."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _shown(folder: Path) -> str:
    return printable(os.path.abspath(folder))


def _permissions(key: Key) -> str:
    if key.is_admin:
        return "do everything, as an admin"
    may = [f"run {_workflows(key)}"]
    may += ["run graphs of its own"] if key.may_graphs else []
    may += ["publish workflows"] if key.may_publish else []
    limits = [f"{key.rate} requests"] if key.rate else []
    limits += [f"{key.concurrent} unfinished jobs"] if key.concurrent else []
    limits += [f"priority {key.priority_max}"] if key.priority_max else []
    return " and ".join(may) + (f" (at most {', '.join(limits)})" if limits else "")


def _workflows(key: Key) -> str:
    if key.workflows is None:
        return "all workflows"
    if not key.workflows:
        return "no workflow"
    more = len(key.workflows) - _MOST_TOLD
    return ", ".join(key.workflows[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _row(key: Key, now: datetime) -> tuple[str, ...]:
    may = [
        word
        for word, is_so in (
            ("admin", key.is_admin),
            ("graphs", key.may_graphs),
            ("publish", key.may_publish),
        )
        if is_so
    ]
    return (
        key.name,
        ", ".join([_workflows(key), *may]),
        "-" if key.rate is None else str(key.rate),
        "-" if key.concurrent is None else str(key.concurrent),
        str(key.priority_max),
        _moment(key.created_at),
        "never" if key.last_used_at is None else _moment(key.last_used_at),
        "" if key.revoked_at is None else f"revoked {_moment(key.revoked_at)}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _document(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "workflows": None if key.workflows is None else list(key.workflows),
        "graphs": key.may_graphs,
        "publish": key.may_publish,
        "admin": key.is_admin,
        "rate": None if key.rate is None else str(key.rate),
        "concurrent": key.concurrent,
        "priority_max": key.priority_max,
        "created_at": _iso(key.created_at),
        "last_used_at": _iso(key.last_used_at),
        "revoked_at": _iso(key.revoked_at),
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    told = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{told.isoformat(timespec='milliseconds')}Z"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
