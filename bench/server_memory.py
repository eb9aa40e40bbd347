"""How much memory the server takes while a very large output passes through it."""

from __future__ import annotations

import asyncio
import time

from blake3 import blake3

from bench import server_client
from bench.budgets import Measured, WrongResult
from bench.engine import Engine, file_graph
from bench.memory import resident_memory
from bench.server_process import forget_peak, serving

SIZE = 1_000_000_000
PATTERN = "comfyserve"
CHUNK = 1 << 20
PATIENCE_S = 300.0


async def measure(engine: Engine) -> list[Measured]:
    """Run a job whose output is `SIZE` bytes, and fetch them from the server."""
    what = f"server memory above idle while {SIZE // 10**9} GB pass through"
    if not engine.has_test_nodes:
        return [Measured(what, None, "MB", must=150, aim=30, detail="needs test nodes")]
    with serving(engine.url) as server:
        process = server.process.pid
        async with server_client.connect(server.url) as client:
            await client.run(file_graph("small.bin", PATTERN, 1000))
            idle, _ = resident_memory(process)
            forget_peak(process)
            start = time.perf_counter()
            async with asyncio.timeout(PATIENCE_S):
                await _pass_through(client)
            seconds = time.perf_counter() - start
            _, peak = resident_memory(process)
    above = None if idle is None or peak is None else peak - idle
    told = "this system does not tell" if idle is None else f"idle {idle:.0f} MB"
    return [
        Measured(
            what, above, "MB", must=150, aim=30, detail=f"{told}; kept and sent, {seconds:.1f} s"
        )
    ]


async def _pass_through(client: server_client.ServerClient) -> None:
    """Run the job, and read its output without keeping it."""
    job_id = await client.submit(file_graph("huge.bin", PATTERN, SIZE))
    output = await client.first_output(job_id)
    seen, size = blake3(), 0
    async with client.session.get(output["url"]) as answer:
        answer.raise_for_status()
        async for chunk in answer.content.iter_chunked(CHUNK):
            seen.update(chunk)
            size += len(chunk)
    if (size, f"blake3:{seen.hexdigest()}") != (SIZE, output["hash"]):
        raise WrongResult(f"{size} bytes came where {SIZE} were due, or others than told")
