"""Whose graphs a server runs besides the workflows it offers, and with which node classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comfyserve.access.callers import Caller
from comfyserve.access.node_classes import require_classes
from comfyserve.denials import Forbidden
from comfyserve.workflows.graph import Graph

_CLOSED: Final = (
    "Others reach this server and nothing asks them for a key, so it {refuses}. Make a key with "
    "'comfyserve keys create NAME --{option}', or allow it with the setting open_graphs."
)


@dataclass(frozen=True, slots=True)
class GraphRules:
    """What holds for graphs that callers bring, and for who may look into those of others.

    *is_open* lets callers without a key do both. *allow* and *deny* are patterns of node classes,
    as `require_classes` takes them; they hold for everybody, an admin too, for they say what the
    backends are safe to run. Workflows that the server offers are their publisher's choice, and
    none of this concerns them.
    """

    is_open: bool = True
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def require_graphs(self, caller: Caller) -> None:
        """Raise `Forbidden` unless the caller may run graphs of its own."""
        if caller.key is None and not self.is_open:
            raise _closed("runs no graphs but its workflows'", "graphs")
        caller.require_graphs()

    def require(self, caller: Caller, graph: Graph) -> None:
        """Raise `Forbidden` unless the caller may run this graph, which was checked before."""
        self.require_graphs(caller)
        require_classes(graph, self.allow, self.deny)

    def require_publish(self, caller: Caller) -> None:
        """Raise `Forbidden` unless the caller may put workflows into the catalogue, or take them
        out: what is published is run, so it is closed with the graphs."""
        if caller.key is None and not self.is_open:
            raise _closed("lets nobody publish workflows", "publish")
        caller.require_publish()

    def require_inspect(self, caller: Caller) -> None:
        """Raise `Forbidden` unless the caller may ask what a workflow of its own would be here."""
        if caller.key is None and not self.is_open:
            raise _closed("looks into no workflows but its own", "publish")
        caller.require_inspect()

    def require_manage(self, caller: Caller) -> None:
        """Raise `Forbidden` unless the caller may manage backends: a stranger's would get the
        inputs and secrets of everybody's jobs."""
        if caller.key is None and not self.is_open:
            raise _closed("lets nobody manage its backends", "admin")
        caller.require_admin()

    def require_sight(self, caller: Caller) -> None:
        """Raise `Forbidden` unless the caller may see nodes, models and the graphs of workflows:
        who runs or publishes graphs has to, who only runs workflows must not."""
        if caller.key is None and not self.is_open:
            raise _closed("shows neither nodes nor graphs", "graphs")
        if not caller.may_publish:
            caller.require_graphs()


def _closed(refuses: str, option: str) -> Forbidden:
    return Forbidden(_CLOSED.format(refuses=refuses, option=option))
