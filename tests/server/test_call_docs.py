"""The calls in the docs work as they stand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks
from tests.engines import running_engine
from tests.server.serving import Served, serving
from tests.server_calls import wait_until

CALLS = [
    pytest.param(line, id=f"{block.place} {number}")
    for block in blocks("sh")
    if block.place.startswith("docs/howto/call-a-workflow.md")
    for number, line in enumerate(block.text.replace("\\\n", " ").splitlines())
    if line.startswith("curl ")
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the examples."""
    with (
        running_engine() as engine,
        serving(
            tmp_path_factory.mktemp("docs"), engine.url, workflows=Path(ROOT / "examples")
        ) as served,
    ):
        wait_until(lambda: bool(served.app.state.host.catalog.nodes))
        yield served


def test_there_are_calls() -> None:
    """The page has calls to run."""
    assert len(CALLS) >= 5


@pytest.mark.parametrize("line", CALLS)
def test_calls_of_the_docs_run(line: str, examples: Served) -> None:
    """Every curl line of the page gives an answer that is no error."""
    command = line.replace("http://127.0.0.1:8189", examples.calls.url)
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    assert '"valid":true' in ended.stdout or '"status":' in ended.stdout, ended.stdout
    assert '"failed"' not in ended.stdout
    assert '"error":{' not in ended.stdout
