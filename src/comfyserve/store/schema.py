"""Brings a database to the form that this version knows, or refuses a newer one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from comfyserve.refusals import SchemaTooNew, StoreUnavailable

if TYPE_CHECKING:
    from alembic.migration import MigrationContext
    from alembic.runtime.migration import RevisionStep

_STEPS = Path(__file__).with_name("migrations")


def upgrade(connection: Connection, database: str) -> None:
    """Take every step that is missing, all in the transaction that *connection* is in.

    Raises `SchemaTooNew` where the database took steps that this version does not know.
    """
    known, taken = _known(), _taken(connection)
    if taken is not None and taken not in known:
        raise SchemaTooNew(database, taken, known[-1])
    # Nearly every start finds nothing to do, and should not wait for what does it to be imported.
    if taken != known[-1]:
        _take_missing_steps(connection)


def require_current(connection: Connection, database: str) -> None:
    """Raise `StoreUnavailable` unless the database has exactly the form this version knows."""
    if _taken(connection) != _known()[-1]:
        reason = "a process of another version of comfyserve has it open; stop that one first"
        raise StoreUnavailable(database, reason)


def _known() -> list[str]:
    """The steps by their files' names: ``v0002_keys.py`` is step 0002."""
    found = (re.match(r"v([0-9]{4})_\w+\.py$", file.name) for file in _STEPS.iterdir())
    return sorted(name[1] for name in found if name)


def _taken(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    step: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return step


def _take_missing_steps(connection: Connection) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(_STEPS), version_locations=[str(_STEPS)])

    def missing(taken: tuple[str, ...], context: MigrationContext) -> list[RevisionStep]:
        return steps._upgrade_revs("head", taken[0] if taken else "base")

    context = MigrationContext.configure(
        connection, opts={"fn": missing, "transactional_ddl": True}
    )
    with Operations.context(context):
        context.run_migrations()
