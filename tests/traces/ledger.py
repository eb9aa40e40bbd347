"""The state of the played server: which jobs it has, and what /queue and /history say of them."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.traces.lines import Object, Response, Sent
from tests.traces.recording import Run, queue_item
from tests.traces.rewriting import rewritten, rewritten_entry, rewritten_frame


@dataclass(slots=True)
class Job:
    """One queued graph. `ours`: our client posted it; else it stays a recorded client's.

    `gone`: it left the queue without a trace. `cut`: our client interrupted it.
    """

    run: Run
    prompt_id: str
    client_id: str
    body: Object
    ours: bool
    running: bool = False
    ended: bool = False
    gone: bool = False
    cut: bool = False
    node: str | None = None
    told: list[Sent] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Is it waiting or running?"""
        return not (self.ended or self.gone)

    @property
    def dropped(self) -> bool:
        """Are its recorded messages not to be sent any more?"""
        return self.gone or self.cut

    def tell(self, message: Sent) -> None:
        """Remember a message of this job that the server has come to."""
        self.told.append(message)
        if message.type == "executing":
            self.node = message.data.get("node")

    def interruption(self) -> Sent:
        """The message which says that this job was interrupted where it is now."""
        executed = [m.data["node"] for m in self.told if m.type == "executing"]
        node = self.node or ""
        graph = self.body.get("prompt") or {}
        return Sent(
            at=0.0,
            socket="",
            message={
                "type": "execution_interrupted",
                "data": {
                    "prompt_id": self.prompt_id,
                    "node_id": node,
                    "node_type": graph.get(node, {}).get("class_type", ""),
                    "executed": [done for done in executed if done != node],
                    "timestamp": int(time.time() * 1000),
                },
            },
        )


class Ledger:
    """The jobs of the played server in the order they came, and the ids they go by now."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.ids: dict[str, str] = {}
        """Recorded prompt and client ids, and the ones our client uses instead."""

    def add(self, job: Job) -> None:
        """Queue a job; from now on its recorded ids mean this one."""
        self.jobs.append(job)
        self.ids[job.run.prompt_id] = job.prompt_id
        if job.ours and job.run.client_id:
            self.ids[job.run.client_id] = job.client_id

    def clear(self) -> None:
        """Forget everything, as a restarted ComfyUI does."""
        self.jobs.clear()

    def settle(self, line: int) -> None:
        """Move on to a line of the recording: jobs start, end or are deleted there."""
        for job in self.jobs:
            if job.run.start is not None and job.run.start <= line:
                job.running = True
            if job.run.end is not None and job.run.end <= line and job.active:
                job.gone = job.run.deleted
                job.ended = not job.run.deleted

    def recorded(self, prompt_id: str) -> Job | None:
        """The job that plays a recorded id; the newest if the id was used again."""
        return next((j for j in reversed(self.jobs) if j.run.prompt_id == prompt_id), None)

    def job(self, prompt_id: str) -> Job | None:
        """The job our client knows by this id."""
        return next((j for j in reversed(self.jobs) if j.prompt_id == prompt_id), None)

    def busy_at(self, line: int) -> Job | None:
        """The job that the recorded worker was at, at this line of the recording."""
        for job in self.jobs:
            start, end = job.run.start, job.run.end
            if start is not None and start <= line and (end is None or line < end):
                return job
        return None

    def cut_at(self, line: int) -> bool:
        """Would a job that our client interrupted still be at work, at this line?"""
        return any(
            job.cut and (job.run.start or line) <= line <= (job.run.end or line)
            for job in self.jobs
        )

    @property
    def running(self) -> Job | None:
        """The job the worker is at."""
        return next((job for job in self.jobs if job.running and job.active), None)

    @property
    def remaining(self) -> int:
        """How many jobs run or wait."""
        return sum(job.active for job in self.jobs)

    def queue(self) -> Object:
        """The body of GET /queue."""
        active = [job for job in self.jobs if job.active]
        return {
            "queue_running": [_item(job) for job in active if job is self.running],
            "queue_pending": [_item(job) for job in active if job is not self.running],
        }

    def status(self) -> Sent:
        """The message that tells every socket the queue's length."""
        info = {"exec_info": {"queue_remaining": self.remaining}}
        return Sent(0.0, "", {"type": "status", "data": {"status": info}})

    def greetings(self, client_id: str) -> list[Object]:
        """What a socket hears as it opens: the status, and the node its job is at."""
        told = self.status().message
        told["data"]["sid"] = client_id
        job = self.running
        if job is None or job.client_id != client_id or job.node is None:
            return [told]
        return [told, {"type": "executing", "data": {"node": job.node}}]

    def history(self, job: Job) -> Object:
        """The history entry of a job, under its id; empty until it ended."""
        if not job.ended:
            return {}
        if job.cut or job.run.entry is None:
            return {job.prompt_id: _told_entry(job)}
        return {job.prompt_id: rewritten_entry(job.run.entry, self.ids)}

    def forget(self, job: Job) -> None:
        """Take a job out of the history."""
        job.ended, job.gone = False, True

    def rewrite(self, message: Sent) -> Sent:
        """A recorded message with the ids our client knows."""
        frame = message.frame and rewritten_frame(message.frame, self.ids)
        told = rewritten(message.message, self.ids)
        return dataclasses.replace(message, message=told, frame=frame)

    def rewrite_answer(self, answer: Response) -> Response:
        """A recorded answer with the ids our client knows."""
        if not isinstance(answer.json, dict | list):
            return answer
        body = rewritten(answer.json, self.ids)
        return dataclasses.replace(answer, json=body, body=json.dumps(body).encode())


def _item(job: Job) -> list[Any]:
    return queue_item(job.run, job.prompt_id, job.body, job.client_id)


def _told_entry(job: Job) -> Object:
    messages = [m for m in job.told if m.type.startswith("execution_")]
    outputs = {m.data["node"]: m.data["output"] for m in job.told if m.type == "executed"}
    return {
        "prompt": _item(job),
        "outputs": outputs,
        "status": {
            "status_str": "error",
            "completed": False,
            "messages": [[m.type, m.data] for m in messages],
        },
        "meta": {},
    }
