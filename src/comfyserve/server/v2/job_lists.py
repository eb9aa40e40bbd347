"""Which jobs a caller wants listed: the query of ``GET /api/v2/jobs``, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comfyserve.denials import InvalidRequest, MetadataFilterInvalid, MetadataInvalid
from comfyserve.errors import did_you_mean
from comfyserve.jobs import JobStatus
from comfyserve.server.v2.submissions import read_metadata
from comfyserve.workflows.graph import shown

MOST_LISTED: Final = 100
USUAL_LISTED: Final = 50
MOST_FILTERS: Final = 3

_KNOWN: Final = ("status", "limit", "cursor", "workflow", "metadata[key]")


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Jobs that fit all of it, from where *cursor* says, at most *limit*."""

    statuses: tuple[JobStatus, ...]
    labels: Mapping[str, str]
    workflow: str | None
    cursor: str | None
    limit: int


def read_list_request(query: Iterable[tuple[str, str]]) -> ListRequest:
    """The request that the query makes. Raises `InvalidRequest`, for a parameter that nobody
    knows, too."""
    statuses: list[JobStatus] = []
    labels: dict[str, str] = {}
    single: dict[str, str] = {}
    for name, value in query:
        if name == "status":
            statuses += [_status(told) for told in value.split(",") if told.strip()]
        elif name.startswith("metadata[") and name.endswith("]"):
            _take_label(labels, name.removeprefix("metadata[").removesuffix("]"), value)
        elif name not in _KNOWN[1:4]:
            hint = did_you_mean(name[:60], _KNOWN)
            raise InvalidRequest(f"There is no query parameter {shown(name)}.{hint}")
        elif name in single:
            raise InvalidRequest(f"The query has {name!r} twice.")
        else:
            single[name] = value
    return ListRequest(
        tuple(dict.fromkeys(statuses)),
        labels,
        single.get("workflow"),
        # An empty cursor is that of the first page.
        single.get("cursor") or None,
        _limit(single.get("limit")),
    )


def _status(told: str) -> JobStatus:
    try:
        return JobStatus(told.strip())
    except ValueError:
        known = [str(status) for status in JobStatus]
        hint = did_you_mean(told[:60], known) or f" There are {', '.join(known)}."
        raise InvalidRequest(f"{shown(told)} is no status.{hint}") from None


def _limit(told: str | None) -> int:
    if told is None:
        return USUAL_LISTED
    number = int(told) if told.isascii() and told.isdigit() and len(told) < 10 else 0
    if not 1 <= number <= MOST_LISTED:
        raise InvalidRequest(f"'limit' is {shown(told)}, but has to be 1 to {MOST_LISTED}.")
    return number


def _take_label(labels: dict[str, str], name: str, value: str) -> None:
    if name in labels:
        raise MetadataFilterInvalid(f"The query asks for the label {shown(name)} twice.")
    try:
        read_metadata({name: value})
    except MetadataInvalid as error:
        raise MetadataFilterInvalid(error.problem) from None
    labels[name] = value
    if len(labels) > MOST_FILTERS:
        raise MetadataFilterInvalid(f"The query may ask for {MOST_FILTERS} labels at most.")
