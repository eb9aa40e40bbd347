"""The backends that jobs can go to: which of them answer, and what they can run."""

from __future__ import annotations

from comfyserve.fleet.fitness import refusal
from comfyserve.fleet.fleet import Fleet, Lacking
from comfyserve.fleet.member import Device, Member, State, System
from comfyserve.fleet.roster import Membership, Roster, Wanted

__all__ = [
    "Device",
    "Fleet",
    "Lacking",
    "Member",
    "Membership",
    "Roster",
    "State",
    "System",
    "Wanted",
    "refusal",
]
