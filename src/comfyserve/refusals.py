"""Every error about what lasts: settings, the data folder, the database, jobs and assets in it.

They stand below `errors.ComfyServeError` like all others.

* ComfyServeError
  + SettingsInvalid         a setting that does not exist or a value that does not fit
  + DataFolderLocked        another process uses the data folder
  + SchemaTooNew            a newer comfyserve wrote the database
  + StoreUnavailable        the data could not be used: disk full, locked, damaged
  + NotFound                there is no job or asset with this id, or it is someone else's
  + BlobNotFound            no bytes with this hash are kept
  + AssetInUse              a job that is not over needs the asset
  + JobUnfinished           what was asked for is only possible once the job is over
  + IllegalMove             a job cannot go from its status to that one
  + LeaseLost               the job is no longer held by who wanted to write to it
  + QueueFull               as many jobs wait as may wait
  + IdempotencyKeyReused    the key was used before
  + InvalidCursor           a cursor that no list gave out
  + MissingAsset            a graph refers to assets that are not there
  + HashMismatch            the bytes that came are not those that were announced
  + DiskCapReached          all kept bytes together are as many as may be kept
  + ListenerTooSlow         who follows a job did not take what happened in time
  + ExtraDataLost           the secrets of a job went with the process that had them
  + WorkflowNotFound        no workflow on offer has this name
  + WorkflowBroken          a workflow's file cannot be read, and never could
  + WorkflowNameRefused     no workflow can be published under this name
    - WorkflowInFolder      a file of the server's folder has the name
  + WorkflowFolderMissing   there is no folder of workflows where one should be
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfyserve.errors import ComfyServeError


class SettingsInvalid(ComfyServeError):
    """A setting that does not exist, or a value that does not fit it; every problem is listed."""

    code = "settings_invalid"

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class DataFolderLocked(ComfyServeError):
    """Another process uses the data folder; *pid* is its process id where it could be read."""

    code = "data_folder_locked"

    def __init__(self, folder: str, pid: int | None = None) -> None:
        super().__init__(folder, pid)
        self.folder = folder
        self.pid = pid

    def __str__(self) -> str:
        holder = "another process" if self.pid is None else f"process {self.pid}"
        return (
            f"The data folder {self.folder} is in use by {holder}. "
            "Stop it, or give this one a data folder of its own."
        )


class SchemaTooNew(ComfyServeError):
    """A newer comfyserve wrote the database, in a form that this one does not know."""

    code = "schema_too_new"

    def __init__(self, database: str, found: str, known: str) -> None:
        super().__init__(database, found, known)
        self.database = database
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.database} was written by a newer comfyserve: its schema is {self.found!r}, and "
            f"this version knows up to {self.known!r}. Update comfyserve, or use another folder."
        )


class StoreUnavailable(ComfyServeError):
    """What was asked of the kept data could not be done; nothing of it was written."""

    code = "store_unavailable"

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        reason = self.reason.rstrip(". \n")
        return f"{self.place} could not be used, and nothing changed: {reason}."


class NotFound(ComfyServeError):
    """There is no job or asset with this id, or it belongs to someone else, or it is past."""

    code = "not_found"

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(kind, id)
        self.kind = kind
        self.id = id

    def __str__(self) -> str:
        return f"There is no {self.kind} {self.id!r}, or no longer."


class BlobNotFound(ComfyServeError):
    """No bytes with these hashes are kept."""

    code = "blob_not_found"

    def __init__(self, hashes: Iterable[str]) -> None:
        self.hashes = tuple(hashes)
        super().__init__(self.hashes)

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"hashes": list(self.hashes)}

    def __str__(self) -> str:
        return f"No bytes are kept with the hash {' or '.join(self.hashes)}. Upload them."


class AssetInUse(ComfyServeError):
    """A job that is not over needs the asset."""

    code = "asset_in_use"

    def __init__(self, asset_id: str, job_id: str) -> None:
        super().__init__(asset_id, job_id)
        self.asset_id = asset_id
        self.job_id = job_id

    def __str__(self) -> str:
        return f"Asset {self.asset_id} is needed by job {self.job_id}, which is not over."


class JobUnfinished(ComfyServeError):
    """What was asked for is only possible once the job is over."""

    code = "job_unfinished"

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(job_id, status)
        self.job_id = job_id
        self.status = status

    def __str__(self) -> str:
        return f"Job {self.job_id} is {self.status}. Cancel it first, or wait for its end."


class IllegalMove(ComfyServeError):
    """A job cannot go from the status it has to that one."""

    code = "illegal_move"

    def __init__(self, job_id: str, status: str, wanted: str) -> None:
        super().__init__(job_id, status, wanted)
        self.job_id = job_id
        self.status = status
        self.wanted = wanted

    def __str__(self) -> str:
        return f"Job {self.job_id} is {self.status} and cannot become {self.wanted}."


class LeaseLost(ComfyServeError):
    """The job is no longer held by who wanted to write to it; *holder* had it before."""

    code = "lease_lost"

    def __init__(self, job_id: str, holder: str) -> None:
        super().__init__(job_id, holder)
        self.job_id = job_id
        self.holder = holder

    def __str__(self) -> str:
        return f"Job {self.job_id} is no longer held by {self.holder}, so nothing was written."


class QueueFull(ComfyServeError):
    """As many jobs wait as may wait."""

    code = "queue_full"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"most": self.most}

    def __str__(self) -> str:
        return f"The queue is full: {self.most} jobs wait already. Try again later."


class IdempotencyKeyReused(ComfyServeError):
    """The idempotency key was used before; each is good for one request.

    Where it *replays*, the same request may come again under it, and this was another one.
    """

    code = "idempotency_key_reuse"

    def __init__(self, key: str, *, replays: bool = False) -> None:
        super().__init__(key)
        self.key = key
        self.replays = replays

    def __str__(self) -> str:
        used = f"The idempotency key {self.key[:80]!r} was used before"
        if self.replays:
            return f"{used}, with other inputs, metadata or priority. Take a new key for these."
        return f"{used}. List the jobs to find its."


class InvalidCursor(ComfyServeError):
    """A cursor that no list gave out."""

    code = "invalid_cursor"

    def __init__(self, cursor: str) -> None:
        super().__init__(cursor)
        self.cursor = cursor

    def __str__(self) -> str:
        return f"{self.cursor[:80]!r} is not a cursor. Use next_cursor of the page before as it is."


class MissingAsset(ComfyServeError):
    """A graph refers to assets that are not there, or that are somebody else's."""

    code = "missing_asset"

    def __init__(self, missing_ids: Iterable[str], problems: Iterable[str] = ()) -> None:
        self.missing_ids = tuple(missing_ids)
        self.problems = tuple(problems)
        super().__init__(self.missing_ids, self.problems)

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"missing_ids": list(self.missing_ids)}

    def __str__(self) -> str:
        told = list(self.problems)
        if self.missing_ids:
            ids = ", ".join(repr(id) for id in self.missing_ids)
            told.append(f"There is no asset {ids}, or no longer. Upload it anew.")
        return " ".join(told)


class HashMismatch(ComfyServeError):
    """The bytes that came are not those that were announced; nothing was kept of them."""

    code = "hash_mismatch"

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"expected": self.expected, "found": self.found}

    def __str__(self) -> str:
        return f"The bytes have the hash {self.found}, but {self.expected[:80]} was announced."


class DiskCapReached(ComfyServeError):
    """All kept bytes together are as many as may be kept."""

    code = "disk_cap_reached"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"most": self.most}

    def __str__(self) -> str:
        return f"This server keeps {self.most:,} bytes at most. Delete jobs or assets first."


class ListenerTooSlow(ComfyServeError):
    """Who follows a job did not take what happened in time; it may resume."""

    code = "listener_too_slow"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"The events of job {self.job_id} came faster than they were taken."


class WorkflowNotFound(ComfyServeError):
    """No workflow on offer has this name; *nearest* are names that look like it."""

    code = "workflow_not_found"

    def __init__(self, name: str, nearest: Iterable[str] = ()) -> None:
        self.name = name
        self.nearest = tuple(nearest)
        super().__init__(self.name, self.nearest)

    @property
    def details(self) -> Mapping[str, Any] | None:
        return {"nearest": list(self.nearest)}

    def __str__(self) -> str:
        meant = " or ".join(repr(name) for name in self.nearest)
        hint = f" Did you mean {meant}?" if meant else ""
        return f"No workflow is named {self.name[:80]!r}.{hint}"


class WorkflowBroken(ComfyServeError):
    """There is a file for the workflow, and it could never be read; *problem* is a sentence."""

    code = "workflow_broken"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"The workflow {self.name!r} cannot be run. {self.problem}"


class WorkflowNameRefused(ComfyServeError):
    """No workflow can be published under this name; *reason* is a sentence."""

    code = "workflow_name_refused"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"A workflow cannot be named {self.name[:80]!r}. {self.reason}"


class WorkflowInFolder(WorkflowNameRefused):
    """A file of the server's folder has the name, and only who has the folder can change that."""

    code = "workflow_in_folder"

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name, file)
        self.file = file

    def __str__(self) -> str:
        return (
            f"{self.name[:80]!r} is {self.file} in the server's folder, which comes first. "
            "Change it there, or take another name."
        )


class WorkflowFolderMissing(ComfyServeError):
    """There is no folder of workflows where one should be, or it cannot be read."""

    code = "workflow_folder_missing"

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder = folder
        self.reason = reason

    def __str__(self) -> str:
        return f"The workflows should be in {self.folder}, but it {self.reason}."


class ExtraDataLost(ComfyServeError):
    """The secrets of a job went with the process that had them."""

    code = "extra_data_lost"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            "The job came with secrets in extra_data, which are never stored, and the server was "
            "restarted before the job ran. Submit it again."
        )
