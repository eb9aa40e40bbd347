"""Whether a job can run on another backend, where its own refused it or does not come back."""

from __future__ import annotations

import asyncio

from comfyserve.dispatcher.desk import Desk
from comfyserve.errors import BackendUnreachable, GraphRejected
from comfyserve.fleet import Member
from comfyserve.jobs import Claim
from comfyserve.workflows.needs import Needs, needs_of


async def needs_elsewhere(
    desk: Desk, claim: Claim, member: Member, error: GraphRejected
) -> Needs | None:
    """What the job needs, where *member* lost some of it and another backend has it all.

    None where it would be refused everywhere. Each backend is tried once: a job that goes round
    ends as soon as all have refused it.
    """
    if not _may_lack_something(error):
        return None
    refused = desk.refused.setdefault(claim.record.id, set())
    refused.add(member.name)
    await member.read_catalog()
    needs = needs_of(claim.graph, desk.fleet.catalogs().values())
    if desk.fleet.can_run(member, needs):
        return None
    others = (one for one in desk.fleet.members if one.name not in refused)
    return needs if any(desk.fleet.can_run(one, needs) for one in others) else None


async def until_up(desk: Desk, claim: Claim, member: Member, limit: float | None) -> None:
    """Wait for the backend that has the job, at most *limit* seconds where that is given.

    Raises `BackendUnreachable` once it was away for as long as a backend may be in the midst of a
    job, and another can run it; `TimeoutError` past the limit.
    """
    patience = member.backend.timeouts.away
    while True:
        try:
            async with asyncio.timeout(patience if limit is None else limit):
                await member.wait_until_up()
                return
        except TimeoutError:
            if limit is not None:
                raise
        needs = needs_of(claim.graph, desk.fleet.catalogs().values())
        others = (one for one in desk.fleet.members if one is not member and one.takes_jobs)
        if any(desk.fleet.can_run(one, needs) for one in others):
            raise BackendUnreachable(member.name, "it does not answer")


def _may_lack_something(error: GraphRejected) -> bool:
    """ComfyUI names no node where a class is not there, and says so of a value it does not list."""
    if not error.node_errors:
        return True
    return any(
        isinstance(problem, dict) and problem.get("type") == "value_not_in_list"
        for told in error.node_errors.values()
        for problem in (told["errors"] if isinstance(told.get("errors"), list) else ())
    )
