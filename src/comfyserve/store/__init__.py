"""Where jobs, their events, assets and keys last: SQL, on SQLite today."""

from __future__ import annotations

from comfyserve.store.assets import Assets
from comfyserve.store.backends import BackendRow, Backends, CatalogRow
from comfyserve.store.counters import Counters
from comfyserve.store.facts import Facts
from comfyserve.store.idempotency import IdempotencyKeys
from comfyserve.store.job_writes import Cancellation
from comfyserve.store.jobs import Jobs
from comfyserve.store.keys import Key, Keys, KnownKeys, Rate
from comfyserve.store.published import Published, PublishedRow
from comfyserve.store.rows import Page
from comfyserve.store.store import DATABASE_NAME, Store
from comfyserve.store.submissions import UsedKey
from comfyserve.store.times import LearnedTime, Times

__all__ = [
    "DATABASE_NAME",
    "Assets",
    "BackendRow",
    "Backends",
    "Cancellation",
    "CatalogRow",
    "Counters",
    "Facts",
    "IdempotencyKeys",
    "Jobs",
    "Key",
    "Keys",
    "KnownKeys",
    "LearnedTime",
    "Page",
    "Published",
    "PublishedRow",
    "Rate",
    "Store",
    "Times",
    "UsedKey",
]
