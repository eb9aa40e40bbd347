"""Who may ask for what, and how often: keys, permissions, rates, signed links.

access = await Access.open(store)
caller = await access.of(token)
caller.require_run("portrait")
await access.spend(caller)
async with access.place(caller):
    await job_queue.submit(graph, owner=caller.owner, priority=caller.capped(priority))
"""

from __future__ import annotations

from comfyserve.access.access import NOTICED_WITHIN, Access, NewKey, has_keys
from comfyserve.access.callers import Caller
from comfyserve.access.graph_rules import GraphRules
from comfyserve.access.links import Links
from comfyserve.access.node_classes import refused_classes, require_classes
from comfyserve.store import Key, Rate

__all__ = [
    "NOTICED_WITHIN",
    "Access",
    "Caller",
    "GraphRules",
    "Key",
    "Links",
    "NewKey",
    "Rate",
    "has_keys",
    "refused_classes",
    "require_classes",
]
