"""What the log tells of the catalogue: one line for each change, none for what stays as it was."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from comfyserve.catalog.drift import Drift
from comfyserve.catalog.entry import Entry

log = logging.getLogger(__name__)

_MOST_LOGGED: Final = 20
"""Workflows that the log names at a time: a model that goes may take hundreds with it."""


def log_change(before: Entry | None, entry: Entry | None) -> None:
    """What there was under a name, and what there is now."""
    name = (entry or before or Entry("", "folder", None)).name
    if entry is None:
        log.info("A workflow is no longer on offer: %s", name)
    elif entry.problem and (before is None or before.problem != entry.problem):
        log.warning("A workflow cannot be offered as it is: %s: %s", name, entry.problem)
    elif before is None or before.version != entry.version:
        log.info("A workflow is on offer: %s", name)
    for warning in entry.warnings if entry else ():
        if before is None or warning not in before.warnings:
            log.warning("%s: %s", name, warning)


def log_drift(worse: Sequence[Drift], mended: Sequence[str]) -> None:
    """The first misfit of each workflow that fits worse or otherwise than before, and the names
    of those that fit again."""
    for one in worse[:_MOST_LOGGED]:
        log.warning("%s does not fit %s: %s", one.workflow, one.backend, one.message)
    if len(worse) > _MOST_LOGGED:
        log.warning("And %d more workflows do not fit a backend.", len(worse) - _MOST_LOGGED)
    for name in mended[:_MOST_LOGGED]:
        log.info("%s fits every backend again.", name)
    if len(mended) > _MOST_LOGGED:
        log.info("And %d more workflows fit again.", len(mended) - _MOST_LOGGED)
