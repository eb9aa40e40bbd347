"""Brings a database to the form that this version knows, or refuses a newer one."""

from __future__ import annotations

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from comfyserve.refusals import SchemaTooNew

_STEPS = str(Path(__file__).with_name("migrations"))


def upgrade(connection: Connection, database: str) -> None:
    """Take every step that is missing, all in the transaction that *connection* is in.

    Raises `SchemaTooNew` where the database took steps that this version does not know.
    """
    steps = ScriptDirectory(_STEPS, version_locations=[_STEPS])
    known = [step.revision for step in steps.walk_revisions()]

    def missing(taken: tuple[str, ...], context: MigrationContext) -> list[RevisionStep]:
        return steps._upgrade_revs("head", taken[0] if taken else "base")

    context = MigrationContext.configure(
        connection, opts={"fn": missing, "transactional_ddl": True}
    )
    found = context.get_current_heads()
    if unknown := [step for step in found if step not in known]:
        raise SchemaTooNew(database, unknown[0], known[0])
    with Operations.context(context):
        context.run_migrations()
