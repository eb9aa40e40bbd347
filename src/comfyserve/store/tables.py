"""What the database holds, table by table; `migrations` brings a database there.

Documents (a graph, an event's body..) are JSON in text columns, written and read by `rows`, so
that they are the same on every database. Times are seconds since the epoch.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

WAITS = "status = 'queued' AND lease_holder IS NULL"
"""Which jobs may be claimed. A query that repeats these words may use the queue's indexes."""

HELD = "lease_holder IS NOT NULL"
"""Which jobs somebody works on."""

UNFINISHED = "completed_at IS NULL"
"""Which jobs are not over."""

LIVING = "revoked_at IS NULL"
"""Which keys are good."""

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),  # the order of their coming; never told outside
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("workflow", Text),
    Column("graph", Text, nullable=False),
    Column("files", Text, nullable=False),
    Column("seeds", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("metadata", Text),
    Column("status", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("rank", Integer, nullable=False),  # the priority negated: the lowest goes first
    Column("turn", Double, nullable=False),  # the owner's share when it came: the lowest goes first
    Column("queue_deadline", Double),
    Column("attempts", Integer, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("backend", Text),
    Column("prompt_id", Text),
    Column("lease_holder", Text),
    Column("lease_until", Double),
    Column("last_event", Integer, nullable=False),
    Column("progress", Text),
    Column("error", Text),
    Column("outputs_reused", Boolean, nullable=False),
    Column("timings", Text),
    Column("has_extra_data", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("completed_at", Double),
    Column("expires_at", Double, nullable=False),
    Column("timeout", Double),
    Column("estimate", Double, nullable=False, server_default=text("1.0")),
    sqlite_autoincrement=True,
)


def _partial(name: str, *columns: str, where: str) -> Index:
    condition = text(where)
    chosen = (jobs.c[column] for column in columns)
    return Index(name, *chosen, sqlite_where=condition, postgresql_where=condition)


_partial("jobs_head", "pool", "rank", "turn", "number", where=WAITS)
_partial("jobs_order", "rank", "turn", "number", "pool", "model", where=WAITS)
_partial("jobs_warm", "pool", "model", "rank", "turn", "number", where=WAITS)
_partial("jobs_deadline", "queue_deadline", where=f"{WAITS} AND queue_deadline IS NOT NULL")
_partial("jobs_held", "lease_holder", "lease_until", where=HELD)
_partial("jobs_over", "expires_at", where="completed_at IS NOT NULL")
# The second column is the same in all rows; with it, counting does not have to look at the jobs.
_partial("jobs_unfinished", "owner", "completed_at", where=UNFINISHED)
Index("jobs_owner", jobs.c.owner, jobs.c.number)

owners = Table(
    "owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("weight", Double, nullable=False),
)

shares = Table(
    "shares",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("turn", Double, nullable=False),  # behind the last job that its owner asked for
    Column("pool", Text, nullable=False),  # of that job
    Column("at", Double, nullable=False),
)
Index("shares_turn", shares.c.turn)

pools = Table(
    "pools",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("needs", Text, nullable=False),
)


def _of_job() -> Column[str]:
    job = ForeignKey("jobs.id", ondelete="CASCADE")
    return Column("job_id", Text, job, primary_key=True)


attempts = Table(
    "job_attempts",
    metadata,
    _of_job(),
    Column("number", Integer, primary_key=True),
    Column("prompt_id", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("at", Double, nullable=False),
)

labels = Table(
    "job_labels",
    metadata,
    _of_job(),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
Index("job_labels_value", labels.c.key, labels.c.value, labels.c.job_id)

events = Table(
    "job_events",
    metadata,
    _of_job(),
    Column("seq", Integer, primary_key=True),
    Column("body", Text, nullable=False),
    Column("at", Double, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

assets = Table(
    "assets",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("hash", Text, ForeignKey("blobs.hash"), nullable=False),
    Column("content_type", Text, nullable=False),
    Column("file_path", Text),
    Column("tags", Text, nullable=False),
    Column("job_id", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    sqlite_autoincrement=True,
)
Index("assets_hash", assets.c.hash, assets.c.owner)
Index("assets_owner", assets.c.owner, assets.c.number)
Index("assets_job", assets.c.job_id)
Index("assets_expiry", assets.c.expires_at)

job_files = Table(
    "job_files",
    metadata,
    _of_job(),
    Column("hash", Text, ForeignKey("blobs.hash"), primary_key=True),
    Column("asset_id", Text, primary_key=True),  # empty where no asset was named
)
Index("job_files_hash", job_files.c.hash)
Index("job_files_asset", job_files.c.asset_id)

outputs = Table(
    "job_outputs",
    metadata,
    _of_job(),
    Column("seq", Integer, primary_key=True),  # of the event that told it
    Column("asset_id", Text, ForeignKey("assets.id", ondelete="CASCADE"), nullable=False),
    Column("node_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subfolder", Text, nullable=False),
    Column("temp", Boolean, nullable=False),
    Column("location", Text, nullable=False),
    UniqueConstraint("job_id", "node_id", "key", "position", name="job_outputs_place"),
)
Index("job_outputs_asset", outputs.c.asset_id)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("job_id", Text),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)
Index("idempotency_keys_expiry", idempotency_keys.c.expires_at)

facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("workflows", Text),  # none: all
    Column("may_graphs", Boolean, nullable=False),
    Column("may_publish", Boolean, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("rate", Text),
    Column("concurrent", Integer),
    Column("priority_max", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    sqlite_autoincrement=True,
)
Index(
    "keys_living_name",
    keys.c.name,
    unique=True,
    sqlite_where=text(LIVING),
    postgresql_where=text(LIVING),
)

published = Table(
    "published",
    metadata,
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),  # the file as it was sent
    Column("sidecar", Text),
    Column("changed_at", Double, nullable=False),
)

backends = Table(
    "backends",
    metadata,
    Column("url", Text, primary_key=True),
    Column("is_added", Boolean, nullable=False),
    Column("is_draining", Boolean, nullable=False),
    Column("changed_at", Double, nullable=False),
)

backend_catalogs = Table(
    "backend_catalogs",
    metadata,
    Column("url", Text, primary_key=True),
    Column("object_info", LargeBinary, nullable=False),  # packed JSON
    Column("seen_at", Double, nullable=False),
)

learned_times = Table(
    "learned_times",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("backend", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("mean", Double, nullable=False),
    Column("spread", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)
Index("learned_times_seen", learned_times.c.seen_at)
