"""Rows to our words and back; JSON in text columns ends here."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from comfyserve.assets import Asset
from comfyserve.events import (
    NumberedEvent,
    error_from_json,
    numbered_from_json,
    progress_from_json,
    to_json,
)
from comfyserve.jobs import JobFile, JobRecord, JobStatus, Lease, Output, Timings
from comfyserve.refusals import InvalidCursor
from comfyserve.store.dialects import Row

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of a list, newest first, and where the next page begins; None after the last."""

    items: Sequence[Item]
    next_cursor: str | None


def page_of(rows: Sequence[Row], items: Iterable[Item], limit: int) -> Page[Item]:
    """The first *limit* of *items*, which were made of *rows*; one more says there are more."""
    more = len(rows) > limit
    return Page(tuple(items)[:limit], _cursor(rows[limit - 1]["number"]) if more else None)


def _cursor(number: int) -> str:
    return urlsafe_b64encode(b"%d" % number).decode("ascii").rstrip("=")


def read_cursor(cursor: str) -> int:
    """The number that the cursor's page ended with. Raises `InvalidCursor`."""
    try:
        number = int(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        raise InvalidCursor(cursor) from None
    if number < 0 or _cursor(number) != cursor or number >= 2**63:
        raise InvalidCursor(cursor)
    return number


def dump(document: object) -> str:
    """A document as it is kept in a text column."""
    return json.dumps(document, separators=(",", ":"))


def storable(text: str) -> str:
    """The text without what a database may not take: lone surrogates and zeros, which JSON can
    bring."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def dump_files(files: Iterable[JobFile]) -> str:
    """The files of a job as a text column."""
    return dump([asdict(file) for file in files])


def load_files(text: str) -> tuple[JobFile, ...]:
    """The files of a job from their text column."""
    return tuple(_file(document) for document in json.loads(text))


def _file(document: Mapping[str, Any]) -> JobFile:
    mask_of = document["mask_of"]
    return JobFile(
        tuple(tuple(path) for path in document["targets"]),
        document["hash"],
        document["name"],
        document["asset_id"],
        None if mask_of is None else tuple(mask_of),
    )


def dump_event(event: NumberedEvent) -> str:
    """An event as a text column."""
    return dump(to_json(event))


def load_event(text: str) -> NumberedEvent:
    """An event from its text column."""
    return numbered_from_json(json.loads(text))


def job_of(row: Row, outputs: tuple[Output, ...] = ()) -> JobRecord:
    """The job of a row of ``jobs``."""
    metadata, progress, error, timings = (
        None if row[name] is None else json.loads(row[name])
        for name in ("metadata", "progress", "error", "timings")
    )
    return JobRecord(
        id=row["id"],
        owner=row["owner"],
        workflow=row["workflow"],
        seeds=json.loads(row["seeds"]),
        inputs=json.loads(row["inputs"]),
        metadata=metadata,
        priority=-row["rank"],
        pool=row["pool"],
        status=JobStatus(row["status"]),
        attempts=row["attempts"],
        backend=row["backend"],
        prompt_id=row["prompt_id"],
        progress=None if progress is None else progress_from_json(progress),
        error=None if error is None else error_from_json(error),
        outputs_reused=bool(row["outputs_reused"]),
        timings=Timings() if timings is None else Timings(**timings),
        queue_deadline=row["queue_deadline"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        expires_at=row["expires_at"],
        last_event=row["last_event"],
        outputs=outputs,
        has_extra_data=bool(row["has_extra_data"]),
        timeout=row["timeout"],
        model=row["model"],
        estimate=row["estimate"],
    )


def lease_of(row: Row) -> Lease | None:
    """Who holds the job of a row of ``jobs``, if anybody."""
    if row["lease_holder"] is None:
        return None
    return Lease(row["id"], row["lease_holder"], row["claims"], row["lease_until"])


def output_of(row: Row) -> Output:
    """The output of a row of ``job_outputs`` joined with its asset and blob."""
    return Output(
        node_id=row["node_id"],
        key=row["key"],
        name=row["name"],
        type=row["type"],
        content_type=row["content_type"],
        size_bytes=row["size_bytes"],
        hash=row["hash"],
        location=row["location"],
        subfolder=row["subfolder"],
        temp=bool(row["temp"]),
        index=row["position"],
        id=row["asset_id"],
    )


def asset_of(row: Row) -> Asset:
    """The asset of a row of ``assets`` joined with its blob."""
    return Asset(
        id=row["id"],
        owner=row["owner"],
        hash=row["hash"],
        size_bytes=row["size_bytes"],
        content_type=row["content_type"],
        created_at=row["created_at"],
        file_path=row["file_path"],
        tags=tuple(json.loads(row["tags"])),
        expires_at=row["expires_at"],
        job_id=row["job_id"],
    )
