"""The one desk for jobs: handed in, asked about, followed | claimed, told about, ended."""

from __future__ import annotations

from comfyserve.job_queue.job_queue import JobQueue
from comfyserve.store import Page, UsedKey

__all__ = ["JobQueue", "Page", "UsedKey"]
