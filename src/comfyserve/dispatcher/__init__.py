"""Brings the jobs that wait to the backends, and keeps what happens to them."""

from __future__ import annotations

from comfyserve.dispatcher.dispatcher import Dispatcher

__all__ = ["Dispatcher"]
