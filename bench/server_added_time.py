"""What the server adds to a job, whether all come out right, and what it uses meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench import bare_client, pictures, server_client
from bench.budgets import Measured, percentile
from bench.engine import Engine
from bench.memory import resident_memory
from bench.rounds import Round, in_turns
from bench.server_process import cpu_seconds, serving, sync_ms
from tests.servers import RunningServer

WARM_UP_ROUNDS = 100
MEASURED_ROUNDS = 600
STALL_MS = 100.0


@dataclass(frozen=True, slots=True)
class Use:
    """CPU seconds that a process used so far, and its memory in MB; None where nobody tells."""

    cpu: float | None
    memory: float | None

    @classmethod
    def of(cls, server: RunningServer) -> Use:
        return cls(cpu_seconds(server.process.pid), resident_memory(server.process.pid)[0])


async def measure(engine: Engine) -> list[Measured]:
    """Run the same jobs on one persistent connection to the engine and through the server."""
    colors = pictures.colors()
    with serving(engine.url) as server:
        async with (
            bare_client.connect(engine.url) as bare,
            server_client.connect(server.url) as ours,
        ):

            async def run_bare(color: int) -> bytes:
                return await bare.run(pictures.graph(color))

            async def run_ours(color: int) -> bytes:
                return await ours.run(pictures.graph(color))

            async def rounds(number: int) -> list[Round]:
                return await in_turns(
                    run_bare, run_ours, colors, pictures.check, warm_up=0, measured=number
                )

            await rounds(WARM_UP_ROUNDS)
            before = Use.of(server)
            seen = await rounds(MEASURED_ROUNDS)
            after = Use.of(server)
        disk = sync_ms(server.folder)
    return [_added(seen, disk), _stalls(seen), *_used(before, after)]


def _added(rounds: Sequence[Round], disk: float) -> Measured:
    added = [each.ours - each.bare for each in rounds]
    bare = percentile([each.bare for each in rounds], 50)
    return Measured(
        "what a durable job through the server adds to one direct connection, p50",
        percentile(added, 50),
        "ms",
        must=8.0,
        aim=3.0,
        detail=f"direct {bare:.1f} ms; p95 {percentile(added, 95):.1f} ms; fdatasync p50"
        f" {disk:.2f} ms",
    )


def _stalls(rounds: Sequence[Round]) -> Measured:
    """Jobs that were wrong or far too late, where the direct one beside it was in time."""
    late = percentile([each.ours for each in rounds], 50) + STALL_MS
    late_bare = percentile([each.bare for each in rounds], 50) + STALL_MS
    wrong = sum(math.isinf(each.ours) for each in rounds)
    stalled = sum(late < each.ours < math.inf and each.bare < late_bare for each in rounds)
    return Measured(
        f"wrong answers, or jobs {STALL_MS:.0f} ms over the median, of {len(rounds)}",
        wrong + stalled,
        "",
        must=0,
        aim=0,
        detail=f"{wrong} wrong, {stalled} late",
    )


def _used(before: Use, after: Use) -> list[Measured]:
    cpu = grown = None
    if before.cpu is not None and after.cpu is not None:
        cpu = (after.cpu - before.cpu) * 1000 / MEASURED_ROUNDS
    if before.memory is not None and after.memory is not None:
        grown = after.memory - before.memory
    return [
        Measured("server CPU per job", cpu, "ms", must=6.0, aim=3.0),
        Measured(
            f"server memory after {MEASURED_ROUNDS} jobs", after.memory, "MB", must=140, aim=100
        ),
        Measured(
            "its growth meanwhile",
            grown,
            "MB",
            must=10,
            aim=1,
            detail=f"since job {WARM_UP_ROUNDS}",
        ),
    ]
