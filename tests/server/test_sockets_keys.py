"""Who may talk on a socket: keys, permissions, how many, and what no key ever opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from comfyserve.events import OutputSaved
from comfyserve.server.sockets import session
from tests.server.socket_calls import socket
from tests.server.sockets_house import GRAPH, House, house, output

UNKNOWN = "cs_" + "a" * 40


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[House]:
    """The application, with few places."""
    async with house(tmp_path, max_streams=2) as running:
        yield running


async def test_the_first_message_shows_the_key(served: House) -> None:
    """The answer says as whom the client is let in and what that key may do."""
    key = await served.host.access.create("ann", workflows=["portrait"], may_graphs=True)

    async with socket(served.url, until_ready=False) as opened:
        ready = await opened.ask("auth", token=key.secret, previews="none")

    assert (ready["type"], ready["caller"], ready["previews"]) == ("ready", "ann", "none")
    assert ready["permissions"] == {
        "workflows": ["portrait"],
        "graphs": True,
        "publish": False,
        "admin": False,
    }
    assert key.secret not in str(ready)


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_header_shows_the_key(served: House, header: str) -> None:
    """Who can send headers is let in at once; a key that is not good is refused with 401."""
    key = await served.host.access.create("ann")
    prefix = "Bearer " if header == "Authorization" else ""

    async with socket(served.url, headers={header: prefix + key.secret}) as opened:
        assert (await opened.ask("hello"))["caller"] == "ann"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with socket(served.url, headers={header: prefix + UNKNOWN}):
            pass

    assert refused.value.status == 401


@pytest.mark.parametrize("token", [UNKNOWN, "", "nonsense", "cs_"])
async def test_a_key_that_is_not_good_closes(served: House, token: str) -> None:
    """It is told, and then the socket is closed with 4401."""
    await served.host.access.create("ann")

    async with socket(served.url, until_ready=False) as opened:
        refused = await opened.ask("auth", token=token)
        code = await opened.closed()

    assert (refused["error"]["code"], code) == ("unauthorized", 4401)
    assert not token or token not in str(refused) or token == "cs_"


async def test_nothing_is_done_for_who_says_not_who_he_is(served: House) -> None:
    """Every other message is refused, a wrong `auth` can be said again, and a right one is still
    taken after them."""
    key = await served.host.access.create("ann", may_graphs=True)

    async with socket(served.url, until_ready=False) as opened:
        refused = [
            await opened.ask("submit", graph=GRAPH),
            await opened.ask("hello"),
            await opened.ask("get", job_id="1"),
        ]
        garbled = await opened.ask("auth", token=7)
        ready = await opened.ask("auth", token=key.secret)

    assert {said["error"]["code"] for said in refused} == {"unauthorized"}
    assert garbled["error"]["code"] == "invalid_request"
    assert ready["type"] == "ready"
    assert await served.host.job_queue.waiting() == 0


async def test_who_says_nothing_is_closed(served: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not say who it is in time is closed with 4401, whatever else it says."""
    monkeypatch.setattr(session, "AUTH_WITHIN", 0.3)
    await served.host.access.create("ann")

    async with socket(served.url, until_ready=False) as opened:
        await opened.ask("ping")
        assert await opened.closed() == 4401


async def test_a_stranger_sends_little(served: House) -> None:
    """Before it is known who sends it, a message may not be large: 1009."""
    key = await served.host.access.create("ann")
    large = "x" * (1 << 17)

    async with socket(served.url, until_ready=False) as opened:
        await opened.say("auth", token=large)
        assert await opened.closed() == 1009
    async with socket(served.url, until_ready=False) as opened:
        await opened.ask("auth", token=key.secret)
        refused = await opened.ask("get", job_id=large)
        assert refused["error"]["code"] == "not_found"


async def test_a_revoked_key_closes_its_sockets(served: House) -> None:
    """It is told within a second or so, and closed with 4403; other keys' sockets stay."""
    ann, ben = [await served.host.access.create(name) for name in ("ann", "ben")]
    async with (
        socket(served.url, headers={"X-API-Key": ann.secret}) as his,
        socket(served.url, headers={"X-API-Key": ben.secret}) as other,
    ):
        await served.host.access.revoke("ann")
        told = await his.next("error")
        code = await his.closed()

        assert (told["error"]["code"], code) == ("unauthorized", 4403)
        assert (await other.ask("ping"))["type"] == "pong"


async def test_a_revoked_key_does_nothing_more(
    served: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that comes before the next look is not answered either."""
    monkeypatch.setattr(session, "LOOK_EVERY", 60.0)
    ann = await served.host.access.create("ann", may_graphs=True)
    async with socket(served.url, headers={"X-API-Key": ann.secret}) as opened:
        await served.host.access.revoke("ann")
        await opened.say("submit", graph=GRAPH)
        assert await opened.closed() == 4403

    assert await served.host.job_queue.waiting() == 0


async def test_the_first_key_closes_who_has_none(served: House) -> None:
    """A socket that was open to all is closed once keys are asked for."""
    async with socket(served.url) as opened:
        await served.host.access.create("ann")
        assert await opened.closed() == 4403


async def test_a_key_sees_only_its_own_jobs(served: House) -> None:
    """Those of another are not there, neither to be followed, nor asked for, nor canceled."""
    ann, ben = [await served.host.access.create(name) for name in ("ann", "ben")]
    lease = await served.running(owner=ann.key.owner)
    async with socket(served.url, headers={"X-API-Key": ben.secret}) as opened:
        refused = [
            await opened.ask(type, job_id=lease.job_id) for type in ("follow", "get", "cancel")
        ]

    assert {said["error"]["code"] for said in refused} == {"not_found"}
    await served.end(lease)


async def test_graphs_take_a_permission(served: House) -> None:
    """A key that may only run some workflows is refused a graph, and all other workflows."""
    key = await served.host.access.create("ann", workflows=["portrait"])
    async with socket(served.url, headers={"X-API-Key": key.secret}) as opened:
        graph = await opened.ask("submit", graph=GRAPH)
        workflow = await opened.ask("submit", workflow="landscape")

    assert graph["error"]["code"] == "forbidden"
    assert workflow["error"]["code"] in ("forbidden", "workflow_not_found")


async def test_requests_are_counted(served: House) -> None:
    """A key's rate holds on a socket too: the answer says when to come again, and the socket
    stays."""
    key = await served.host.access.create("ann", rate="3/m")
    async with socket(served.url, headers={"X-API-Key": key.secret}) as opened:
        answers = [await opened.ask("get", job_id="1") for _ in range(3)]
        pong = await opened.ask("ping")

    codes = [answer["error"]["code"] for answer in answers]
    assert codes == ["not_found", "not_found", "rate_limited"]
    assert 0 < answers[-1]["retry_after"] <= 60
    assert pong["type"] == "pong"


async def test_only_so_many_sockets_may_be_open(served: House) -> None:
    """One more of the same owner is told so and closed with 4429; another owner comes in."""
    ann, ben = [await served.host.access.create(name) for name in ("ann", "ben")]
    mine = {"X-API-Key": ann.secret}
    async with socket(served.url, headers=mine), socket(served.url, headers=mine):
        async with socket(served.url, headers=mine, until_ready=False) as refused:
            told = await refused.next("error")
            code = await refused.closed()
        async with socket(served.url, headers={"X-API-Key": ben.secret}) as other:
            pong = await other.ask("ping")

    assert (told["error"]["code"], code) == ("too_many_streams", 4429)
    assert pong["type"] == "pong"


async def test_only_so_many_jobs_may_be_followed(served: House) -> None:
    """One more is refused before a job is made of it, and can be had without being followed; a
    place that was given up is free."""
    async with socket(served.url) as opened:
        jobs = [await opened.submit(graph=GRAPH) for _ in range(2)]
        refused = await opened.ask("submit", graph=GRAPH)
        waiting = await served.host.job_queue.waiting()
        await opened.submit(graph=GRAPH, follow=False)
        await opened.ask("unfollow", job_id=jobs[0]["id"])
        following = await opened.ask("follow", job_id=jobs[0]["id"])

    assert (refused["error"]["code"], waiting) == ("too_many_streams", 2)
    assert refused["retry_after"] > 0
    assert following["type"] == "following"


async def test_another_key_takes_another_socket(served: House) -> None:
    """A client may say again who it is, but not become somebody else."""
    ann, ben = [await served.host.access.create(name) for name in ("ann", "ben")]
    async with socket(served.url, headers={"X-API-Key": ann.secret}) as opened:
        same = await opened.ask("auth", token=ann.secret)
        other = await opened.ask("auth", token=ben.secret)

    assert same["type"] == "ready"
    assert other["error"]["code"] == "invalid_request"


async def test_auth_is_taken_where_nobody_asks_for_it(served: House) -> None:
    """A client that always sends its key also works before a server without any."""
    async with socket(served.url) as opened:
        ready = await opened.ask("auth", token=UNKNOWN, previews="base64")

    assert (ready["type"], ready["caller"], ready["previews"]) == ("ready", None, "base64")


async def test_pictures_are_had_without_the_key(served: House) -> None:
    """Where keys are asked for, the addresses of outputs are signed ones."""
    key = await served.host.access.create("ann")
    lease = await served.running(owner=key.key.owner)
    await served.host.job_queue.record(lease, [OutputSaved(lease.job_id, output())])
    async with socket(served.url, headers={"X-API-Key": key.secret}) as opened:
        await opened.ask("follow", job_id=lease.job_id)
        saved = await opened.hear_event(lease.job_id, lambda event: event["event"] == "output")

    assert "?sig=" in saved["data"]["url"]
    assert key.secret not in saved["data"]["url"]
    await served.end(lease)
