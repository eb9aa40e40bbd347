"""The live side of events: whoever listens to a job hears here what happens to it."""

from __future__ import annotations

from comfyserve.feed.listener import Listener
from comfyserve.feed.local import Latest, LocalFeed

__all__ = ["Latest", "Listener", "LocalFeed"]
