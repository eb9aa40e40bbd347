"""What holds of every job, whatever happened to it."""

from __future__ import annotations

from tests.server_calls import OVER, Document, Frame, ServerCalls


def check_honest(calls: ServerCalls, job_id: str) -> Document:
    """The job, which must be over, once, and the same wherever one asks.

    Its events are numbered from 1 without a gap, none comes after its end, and resuming in
    their midst tells the rest of them and nothing else.
    """
    job = calls.job(job_id)
    assert job["status"] in OVER, job
    frames = calls.events(job_id, after=0)
    kept = [frame for frame in frames if frame.id is not None]
    assert [frame.id for frame in kept] == list(range(1, len(kept) + 1)), frames
    assert [frame.is_last for frame in frames] == [False] * (len(frames) - 1) + [True], frames
    assert frames[-1].data["status"] == job["status"]
    assert _outputs(frames) == [output["id"] for output in job["outputs"]]
    assert bool(job["error"]) == (job["status"] == "failed"), job
    assert job["completed_at"] is not None
    middle = len(kept) // 2
    assert [frame for frame in calls.events(job_id, after=middle) if frame.id] == kept[middle:]
    snapshot = calls.events(job_id, v2=True)
    assert [frame.is_last for frame in snapshot] == [False] * (len(snapshot) - 1) + [True]
    assert _outputs(snapshot) == _outputs(frames)
    assert snapshot[-1].data["status"] == job["status"]
    return job


def check_listed(calls: ServerCalls, jobs: list[Document]) -> None:
    """Every one of *jobs* is listed, once, and as it stands by itself."""
    listed = [(job["id"], job["status"]) for job in calls.jobs()]
    assert len({job_id for job_id, _ in listed}) == len(listed)
    assert {(job["id"], job["status"]) for job in jobs} <= set(listed)


def _outputs(frames: list[Frame]) -> list[str]:
    return [frame.data["id"] for frame in frames if frame.event == "output"]
