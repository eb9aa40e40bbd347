"""Submissions that a server cannot take now, or ever, are refused at once and harm nobody."""

from __future__ import annotations

from pathlib import Path

from tests.engines import running_engine
from tests.server.serving import serving
from tests.server_calls import wait_until

GRAPH = {"1": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}


def test_nothing_is_taken_by_a_server_that_stops(tmp_path: Path) -> None:
    """Once it stops a submission is 503 and says so, and no job is made of it."""
    with serving(tmp_path) as served:
        served.app.state.host.is_stopping = True

        answer = served.calls.ask("POST", "/api/v2/jobs", {"workflow": GRAPH})

        assert (answer.status, answer.code) == (503, "stopping")
        assert served.calls.jobs() == []


def test_no_job_is_taken_while_the_disk_cap_is_reached(tmp_path: Path) -> None:
    """With as many bytes kept as may be, a submission is 507; with room again it is taken."""
    with serving(tmp_path, disk_cap=1000, blob_grace=0.0) as served:
        assert served.calls.upload(bytes(999), "a.bin").status == 201
        assert served.calls.ask("POST", "/api/v2/jobs", {"workflow": GRAPH}).status == 201
        assert served.calls.upload(b"b", "b.bin").status == 201

        # How much is kept is believed for a second.
        wait_until(
            lambda: served.calls.ask("POST", "/api/v2/jobs", {"workflow": GRAPH}).status == 507
        )
        refused = served.calls.ask("POST", "/api/v2/jobs", {"workflow": GRAPH})

        assert (refused.status, refused.code) == (507, "disk_cap_reached")


def test_a_graph_of_unknown_nodes_costs_little(tmp_path: Path) -> None:
    """However many nodes nobody knows, not all are told, and few names are compared with all."""
    graph = {str(n): {"class_type": f"KSampler{n}", "inputs": {}} for n in range(5000)}
    with running_engine() as engine, serving(tmp_path, engine.url) as served:
        wait_until(lambda: served.calls.ask("GET", "/api/object_info").status == 200)

        answer = served.calls.ask("POST", "/api/v2/jobs", {"workflow": graph})

        assert (answer.status, answer.code) == (422, "invalid_workflow")
        assert len(answer.body) < 100_000
        # Three of the ten hints stand in the sentence too.
        assert 0 < answer.body.count(b"Did you mean 'KSampler") <= 13
