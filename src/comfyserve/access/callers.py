"""Who asks, and what that one may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comfyserve.denials import KeyLacksPermission
from comfyserve.store import Key, Rate

_MOST_TOLD: Final = 10
"""How many workflows a refusal names."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a living key, or nobody in particular where no key is needed.

    A caller without a key may do everything, an admin's key too, but each sees only what is its
    own: *owner* is whose jobs and assets those are, empty without a key.
    """

    key: Key | None = None

    @property
    def owner(self) -> str:
        """Whose jobs, assets and events the caller sees and makes."""
        return "" if self.key is None else self.key.owner

    @property
    def is_admin(self) -> bool:
        """May manage keys and backends."""
        return self.key is None or self.key.is_admin

    @property
    def may_graphs(self) -> bool:
        """May run graphs of its own."""
        return self.key is None or self.key.may_graphs or self.key.is_admin

    @property
    def may_publish(self) -> bool:
        """May put workflows into the catalogue."""
        return self.key is None or self.key.may_publish or self.key.is_admin

    def may_run(self, workflow: str) -> bool:
        """May run, and so see, the workflow of this name."""
        if self.key is None or self.key.is_admin or self.key.workflows is None:
            return True
        return workflow in self.key.workflows

    def capped(self, priority: int) -> int:
        """The priority that a job gets for which this one was asked."""
        return priority if self.key is None else min(priority, self.key.priority_max)

    @property
    def rate(self) -> Rate | None:
        """How often it may come; None for as often as it likes."""
        return None if self.key is None else self.key.rate

    @property
    def concurrent(self) -> int | None:
        """How many of its jobs may be unfinished at once; None for any number."""
        return None if self.key is None else self.key.concurrent

    def require_run(self, workflow: str) -> None:
        """Raise `KeyLacksPermission` unless it may run the workflow."""
        if self.key is not None and not self.may_run(workflow):
            action = f"run the workflow {workflow[:80]!r}"
            raise KeyLacksPermission(self.key.name, action, _allowed(self.key.workflows or ()))

    def require_graphs(self) -> None:
        """Raise `KeyLacksPermission` unless it may run graphs of its own."""
        if self.key is not None and not self.may_graphs:
            raise _lacking(self.key, "run graphs of its own", "--graphs")

    def require_publish(self) -> None:
        """Raise `KeyLacksPermission` unless it may put workflows into the catalogue."""
        if self.key is not None and not self.may_publish:
            raise _lacking(self.key, "publish workflows", "--publish")

    def require_inspect(self) -> None:
        """Raise `KeyLacksPermission` unless it may bring workflows at all, to publish or to run."""
        if self.key is not None and not (self.may_publish or self.may_graphs):
            raise _lacking(self.key, "inspect workflows of its own", "--publish or --graphs")

    def require_admin(self) -> None:
        """Raise `KeyLacksPermission` unless it may manage keys and backends."""
        if self.key is not None and not self.is_admin:
            raise _lacking(self.key, "manage this server", "--admin")


def _lacking(key: Key, action: str, option: str) -> KeyLacksPermission:
    return KeyLacksPermission(key.name, action, f"That takes a key made with {option}")


def _allowed(workflows: tuple[str, ...]) -> str:
    if not workflows:
        return "It may run none"
    more = f" and {len(workflows) - _MOST_TOLD} more" if len(workflows) > _MOST_TOLD else ""
    return "It may run " + ", ".join(map(repr, workflows[:_MOST_TOLD])) + more
