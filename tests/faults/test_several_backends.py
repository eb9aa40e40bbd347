"""Several ComfyUIs of which one dies, rests, leaves or forgets; and two that know nothing of
each other and call their files the same."""

from __future__ import annotations

from collections import Counter
from io import BytesIO

import pytest
from PIL import Image

from tests.engines import RunningEngine
from tests.faults.comfyui import ask, is_idle, waits_in
from tests.faults.conftest import Engines, Servers
from tests.faults.graphs import Counted
from tests.faults.honesty import check_honest, check_listed
from tests.server_calls import Document, ServerCalls, wait_until
from tests.servers import RunningServer

pytestmark = pytest.mark.timeout(120)

NOTICED = 30.0
"""Seconds in which a job must have been moved from a backend that was lost."""


class Pair:
    """A server before two ComfyUIs of the test's own."""

    def __init__(self, start_engine: Engines, start_server: Servers) -> None:
        self.engines = [start_engine(name=name) for name in ("one", "other")]
        self.server: RunningServer = start_server(*(engine.url for engine in self.engines))
        self.calls = ServerCalls(self.server.url)
        wait_until(lambda: all(each["nodes"] for each in self.backends()))

    def backends(self) -> list[Document]:
        """What the server says of them, in their order."""
        listed: list[Document] = self.calls.get("/api/backends")["backends"]
        return listed

    def tell(self, method: str, place: int, verb: str = "") -> Document:
        """Drain, resume or remove one of them."""
        path = f"/api/backends/{self.backends()[place]['id']}{verb}"
        answer = self.calls.ask(method, path)
        assert answer.status == 200, answer
        return answer.json()

    def submit(self, *graphs: Counted) -> list[str]:
        """Hand them in; the jobs' ids."""
        return [self.calls.submit(each.graph)["id"] for each in graphs]

    def runner(self, graph: Counted) -> RunningEngine:
        """Who of them runs that graph, once one does; the first of those that ran it."""
        wait_until(lambda: any(graph.runs(engine) for engine in self.engines))
        return next(engine for engine in self.engines if graph.runs(engine))

    def other(self, engine: RunningEngine) -> RunningEngine:
        """The one that this is not."""
        return self.engines[1 - self.engines.index(engine)]

    def content(self, job: Document) -> bytes:
        """The bytes of the job's only output."""
        [output] = job["outputs"]
        answer = self.calls.ask("GET", output["url"].removeprefix(self.server.url))
        assert answer.status == 200, answer
        return answer.body


@pytest.fixture
def pair(start_engine: Engines, start_server: Servers) -> Pair:
    return Pair(start_engine, start_server)


def test_a_killed_backend_loses_no_job(pair: Pair) -> None:
    """One of two is killed while it runs a job and another waits in it: both end on the other one,
    with their own outputs; only the one that ran counts two attempts."""
    graphs = [Counted(seconds=1.5), Counted(seconds=1.5), Counted(), Counted()]
    jobs = pair.submit(*graphs)
    lost = pair.runner(graphs[0])
    kept = pair.other(lost)
    behind = next(place for place in (2, 3) if _is_inside(lost, jobs[place]))

    lost.kill()

    ended = [pair.calls.until_over(job_id, NOTICED) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 4
    honest = [check_honest(pair.calls, job_id) for job_id in jobs]
    assert [pair.content(job) for job in honest] == [each.name.encode() for each in graphs]
    assert honest[0]["attempts"] == 2
    assert (graphs[0].runs(lost), graphs[0].runs(kept)) == (1, 1)
    assert (graphs[behind].runs(lost), graphs[behind].runs(kept)) == (0, 1)
    assert [job["attempts"] for job in honest[1:] if job is not honest[behind]] == [1, 1]
    check_listed(pair.calls, ended)


def test_a_draining_backend_ends_what_it_has(pair: Pair) -> None:
    """What runs there and what waits inside ends there; all that comes meanwhile goes to the other,
    and after it was resumed it has its share again."""
    first, second = pair.engines
    pair.tell("POST", 1, "/drain")
    graphs = [Counted(seconds=1.0), Counted()]
    jobs = pair.submit(*graphs)
    pair.runner(graphs[0])
    wait_until(lambda: waits_in(first, jobs[1]))

    assert pair.tell("POST", 0, "/drain")["state"] == "draining"
    pair.tell("POST", 1, "/resume")
    later = [Counted() for _ in range(3)]
    jobs += pair.submit(*later)

    assert [pair.calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded"] * 5
    assert [each.runs(first) for each in (*graphs, *later)] == [1, 1, 0, 0, 0]
    assert [each.runs(second) for each in (*graphs, *later)] == [0, 0, 1, 1, 1]
    assert is_idle(first)
    pair.tell("POST", 0, "/resume")
    pair.tell("POST", 1, "/drain")
    [again] = pair.submit(last := Counted())
    assert pair.calls.until_over(again)["status"] == "succeeded"
    assert last.runs(first) == 1


def test_a_removed_backend_leaves_its_jobs(pair: Pair) -> None:
    """A backend is removed while it runs a job and another waits in it: it is rid of both, and both
    end on the other one."""
    first, second = pair.engines
    pair.tell("POST", 1, "/drain")
    graphs = [Counted(seconds=3.0), Counted()]
    jobs = pair.submit(*graphs)
    pair.runner(graphs[0])
    wait_until(lambda: waits_in(first, jobs[1]))
    pair.tell("POST", 1, "/resume")

    assert pair.tell("DELETE", 0)["comes_back"] is True

    assert [each["url"] for each in pair.backends()] == [second.url]
    assert [pair.calls.until_over(job_id)["status"] for job_id in jobs] == ["succeeded"] * 2
    assert [check_honest(pair.calls, job_id)["attempts"] for job_id in jobs] == [2, 1]
    assert [each.runs(first) for each in graphs] == [1, 0]
    assert [each.runs(second) for each in graphs] == [1, 1]
    wait_until(lambda: is_idle(first))


def test_a_backend_without_the_node_is_passed_over(pair: Pair, start_engine: Engines) -> None:
    """One of two comes back without its custom nodes: jobs that need them run on the other, also
    those that it was just about to get, and none is lost or fails."""
    first, second = pair.engines
    pair.tell("POST", 1, "/drain")
    graphs = [Counted(seconds=2.0), *(Counted() for _ in range(4))]
    jobs = pair.submit(*graphs)
    pair.runner(graphs[0])
    first.kill()

    start_engine(port=int(first.url.rpartition(":")[2]), name="one", test_nodes=False)
    wait_until(lambda: pair.backends()[0]["state"] == "up")
    pair.tell("POST", 1, "/resume")

    ended = [pair.calls.until_over(job_id, NOTICED) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 5
    assert [each.runs(second) for each in graphs] == [1] * 5
    assert [check_honest(pair.calls, job_id)["attempts"] for job_id in jobs[2:]] == [1] * 3
    wait_until(lambda: [each["state"] for each in pair.backends()] == ["up", "up"])


def test_files_of_one_name_are_never_mixed(pair: Pair) -> None:
    """Both count their files from one, so that each name is there twice with other bytes: every job
    has its own picture, whichever backend made it."""
    colors = [(number, 255 - number, 7 * number) for number in range(24)]
    jobs = [pair.calls.submit(_painting(color))["id"] for color in colors]

    ended = [pair.calls.until_over(job_id) for job_id in jobs]

    assert [job["status"] for job in ended] == ["succeeded"] * 24
    names = Counter(job["outputs"][0]["name"] for job in ended)
    assert max(names.values()) == 2 and list(names.values()).count(2) > 4
    for job, color in zip(ended, colors, strict=True):
        with Image.open(BytesIO(pair.content(job))) as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == color


def test_a_killed_server_finds_each_job_where_it_is(pair: Pair) -> None:
    """Killed with jobs inside both, the next start goes on with each on its own backend; none runs
    twice, and those that waited with us run too."""
    graphs = [Counted(seconds=2.5), Counted(seconds=2.5), *(Counted() for _ in range(4))]
    jobs = pair.submit(*graphs)
    wait_until(lambda: [_counts(engine) for engine in pair.engines] == [(1, 1)] * 2)
    before = [pair.runner(each) for each in graphs[:2]]

    pair.server.kill()
    pair.server.start()

    ended = [pair.calls.until_over(job_id) for job_id in jobs]
    assert [job["status"] for job in ended] == ["succeeded"] * 6
    assert [check_honest(pair.calls, job_id)["attempts"] for job_id in jobs] == [1] * 6
    assert [sum(each.runs(engine) for engine in pair.engines) for each in graphs] == [1] * 6
    assert [pair.runner(each) for each in graphs[:2]] == before
    assert set(map(pair.engines.index, before)) == {0, 1}
    assert [pair.content(job) for job in ended] == [each.name.encode() for each in graphs]


def _counts(engine: RunningEngine) -> tuple[int, int]:
    """How many jobs run there, and how many wait."""
    queue = ask(engine, "/queue")
    return len(queue["queue_running"]), len(queue["queue_pending"])


def _is_inside(engine: RunningEngine, job_id: str) -> bool:
    queue = ask(engine, "/queue")
    return job_id in [each[1] for each in (*queue["queue_running"], *queue["queue_pending"])]


def _painting(color: tuple[int, int, int]) -> Document:
    red, green, blue = color
    size = {"width": 8, "height": 8, "batch_size": 1}
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {**size, "color": red << 16 | green << 8 | blue},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "same"},
        },
    }
