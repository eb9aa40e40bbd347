"""A host as a process of its own, for tests that kill it: data folder, backend, four jobs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.hosts import hosting, sleeping, submit


async def main(folder: Path, url: str) -> None:
    """Hand in four jobs, say their ids, and run them until somebody ends us."""
    async with hosting(folder, url) as host:
        jobs = [await submit(host, sleeping(1.5, seed)) for seed in range(4)]
        print(*jobs, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
