"""The pools in which jobs wait, and what a backend needs to have for each of them.

The functions run on the threads of the store; `WaitingPools` is for the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from comfyserve.store.dialects import Sql
from comfyserve.store.tables import HELD, WAITS
from comfyserve.workflows.needs import NOTHING, Needs


class WaitingPools:
    """Every pool in which a job may wait, in memory: who looks for work asks for it all the time.

    A pool is in it from the moment a job is on its way there, until one looks and finds none.
    """

    def __init__(self, found: Mapping[str, Needs]) -> None:
        self._needs = dict(found)
        self._entered: dict[str, int] = {}
        self._moment = 0

    @property
    def known(self) -> Mapping[str, Needs]:
        """What jobs need, by pool; it changes with the queue."""
        return MappingProxyType(self._needs)

    @property
    def moment(self) -> int:
        """Tells `leave` what was looked for before, and what came since."""
        return self._moment

    def enter(self, pool: str, needs: Needs) -> None:
        """A job is on its way into the pool, or back."""
        self._moment += 1
        self._entered[pool] = self._moment
        self._needs[pool] = needs

    def leave(self, pools: Iterable[str], looked: int) -> None:
        """None waited in these pools when somebody *looked*; those entered since stay."""
        for pool in pools:
            if self._entered.get(pool, 0) <= looked:
                self._entered.pop(pool, None)
                self._needs.pop(pool, None)


def read(sql: Sql) -> dict[str, Needs]:
    """The pools in which jobs wait now; skips from pool to pool, however many wait in each."""
    names = sql.rows(
        f"WITH RECURSIVE up(pool) AS (SELECT min(pool) FROM jobs WHERE {WAITS} UNION ALL"
        f" SELECT (SELECT min(jobs.pool) FROM jobs WHERE {WAITS} AND jobs.pool > up.pool) FROM up"
        " WHERE up.pool IS NOT NULL) SELECT pool FROM up WHERE pool IS NOT NULL"
    )
    return {row["pool"]: _needs_of(sql, row["pool"]) for row in names}


def keep(sql: Sql, pool: str, needs: Needs) -> None:
    """Note what the pool's jobs need, for a process to come."""
    if pool:
        sql.change(
            "INSERT INTO pools (pool, needs) VALUES (:pool, :needs) ON CONFLICT (pool) DO NOTHING",
            pool=pool,
            needs=needs.to_json(),
        )


def move(sql: Sql, job_id: str, needs: Needs) -> None:
    """Have a job that waits wait in the pool of these needs."""
    moved = sql.change(
        f"UPDATE jobs SET pool = :pool WHERE id = :id AND {WAITS}", pool=needs.pool, id=job_id
    )
    if moved:
        keep(sql, needs.pool, needs)


def waits_in(sql: Sql, job_id: str) -> tuple[str, Needs] | None:
    """The pool that the job waits in, and what it needs; None where it does not wait."""
    row = sql.row(f"SELECT pool FROM jobs WHERE id = :id AND {WAITS}", id=job_id)
    return None if row is None else (row["pool"], _needs_of(sql, row["pool"]))


def left_empty(sql: Sql, job_ids: Iterable[str]) -> tuple[str, ...]:
    """The pools of these jobs in which none waits any more."""
    rows = [sql.row("SELECT pool FROM jobs WHERE id = :id", id=job_id) for job_id in job_ids]
    pools = dict.fromkeys(row["pool"] for row in rows if row is not None)
    return tuple(pool for pool in pools if not has_waiting(sql, pool))


def has_waiting(sql: Sql, pool: str) -> bool:
    """Whether a job waits in the pool."""
    found = f"SELECT 1 AS found FROM jobs WHERE {WAITS} AND pool = :pool LIMIT 1"
    return sql.row(found, pool=pool) is not None


def forget_unused(sql: Sql) -> int:
    """Forget what is needed in pools that have no unfinished job; says how many it were."""
    return sql.change(
        "DELETE FROM pools WHERE"
        f" NOT EXISTS (SELECT 1 FROM jobs WHERE {WAITS} AND jobs.pool = pools.pool)"
        f" AND pool NOT IN (SELECT jobs.pool FROM jobs WHERE {HELD})"
    )


def _needs_of(sql: Sql, pool: str) -> Needs:
    row = sql.row("SELECT needs FROM pools WHERE pool = :pool", pool=pool)
    return NOTHING if row is None else Needs.from_json(row["needs"])
