"""How much memory saving a large output takes, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from blake3 import blake3

from bench.budgets import Measured, WrongResult
from comfyserve import Client

SIZE = 500_000_000
PATTERN = "comfyserve"
MUST_MB = 100.0
AIM_MB = 30.0


def measure(url: str) -> Measured:
    """Save an output of `SIZE` bytes, and compare the process's peak with its idle memory."""
    with tempfile.TemporaryDirectory(prefix="comfyserve bench ") as folder:
        answer = subprocess.run(
            [sys.executable, "-m", "bench.memory", url, folder],
            check=True,
            stdout=subprocess.PIPE,
            timeout=300,
        )
    seen: dict[str, float | None] = json.loads(answer.stdout)
    idle, peak = seen["idle"], seen["peak"]
    above = None if idle is None or peak is None else peak - idle
    detail = "this system does not tell" if idle is None else f"idle {idle:.0f} MB"
    return Measured(
        f"memory above idle while {SIZE // 10**6} MB are saved",
        above,
        "MB",
        must=MUST_MB,
        aim=AIM_MB,
        detail=f"{detail}, {seen['seconds']:.1f} s",
    )


def save_large_output(url: str, folder: Path) -> dict[str, float | None]:
    """Idle and peak memory of this process in MB, and the seconds the large job took."""
    with Client(url, output_dir=folder) as client:
        client.run(_graph(1000))
        idle, _ = resident_memory()
        job = client.run(_graph(SIZE))
        _, peak = resident_memory()
    (output,) = job.outputs
    _check(output.path, output.hash)
    return {"idle": idle, "peak": peak, "seconds": job.timings.running}


def resident_memory(process: int | str = "self") -> tuple[float | None, float | None]:
    """A process's memory now and at most so far, in MB; None where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        lines = (line.split() for line in status.read_text(encoding="utf-8").splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines if words[0] in _LINUX_FIELDS}
        return kilobytes["VmRSS:"] / 1e3, kilobytes["VmHWM:"] / 1e3
    if sys.platform == "win32" or process != "self":
        return None, None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return most, most


# Linux counts the parent's memory into getrusage's peak, so its own fields are read there.
_LINUX_FIELDS = ("VmRSS:", "VmHWM:")


def _graph(size: int) -> dict[str, Any]:
    emitted = {"key": "files", "kind": "files", "name": "large.bin", "pattern": PATTERN}
    return {"1": {"class_type": "TestEmit", "inputs": {**emitted, "size": size}}}


def _check(path: Path, told_hash: str) -> None:
    if path.stat().st_size != SIZE:
        raise WrongResult(f"{path} holds {path.stat().st_size} bytes where {SIZE} were due")
    seen = blake3().update_mmap(path).hexdigest()
    if not told_hash == f"blake3:{seen}" == f"blake3:{_expected_hash()}":
        raise WrongResult(f"{path} is not what was sent, or not what its hash says")


def _expected_hash() -> str:
    """The hash of `PATTERN` over and over, `SIZE` bytes of it."""
    hasher = blake3()
    batch = PATTERN.encode() * 100_000
    whole, rest = divmod(SIZE, len(batch))
    for _ in range(whole):
        hasher.update(batch)
    return hasher.update(batch[:rest]).hexdigest()


if __name__ == "__main__":
    print(json.dumps(save_large_output(sys.argv[1], Path(sys.argv[2]))))
