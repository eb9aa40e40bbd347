"""Jobs in the store, from the queue to their end and beyond."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from comfyserve.events import Noted, NumberedEvent, OutputSaved, StatusChanged
from comfyserve.jobs import JobError, JobFile, JobStatus, Offer, Progress, Timings
from comfyserve.refusals import (
    BlobNotFound,
    IdempotencyKeyReused,
    IllegalMove,
    InvalidCursor,
    JobUnfinished,
    LeaseLost,
    NotFound,
    QueueFull,
)
from comfyserve.store import Store, UsedKey
from tests.store.samples import (
    GRAPH,
    START,
    Clock,
    asset,
    claimed,
    hash_of,
    offer,
    output,
    running,
    status,
    submission,
    succeeded,
)

KEY = UsedKey("ann", "POST /jobs", "k1", "digest", START + 100)


async def test_a_submitted_job_is_there_with_its_first_event(store: Store) -> None:
    """All that was handed in can be had again, and event 1 says the job is queued."""
    job = submission(
        owner="ann",
        workflow="portrait",
        seeds={"3.seed": 2**53 - 1},
        inputs={"prompt": "a fox"},
        metadata={"app": "demo"},
        priority=5,
        queue_deadline=START + 60,
    )

    standing = await store.jobs.submit(job)

    kept = await store.jobs.get(job.id, "ann")
    assert standing == (kept, 1)
    told = (StatusChanged(job.id, JobStatus.QUEUED, seq=1),)
    assert await store.jobs.events(job.id) == told
    assert await store.jobs.graph(job.id) == GRAPH
    assert (kept.owner, kept.workflow, kept.priority) == ("ann", "portrait", 5)
    assert (kept.seeds, kept.inputs) == (job.seeds, job.inputs)
    assert (kept.metadata, kept.queue_deadline) == ({"app": "demo"}, START + 60)
    assert (kept.status, kept.attempts, kept.created_at) == (JobStatus.QUEUED, 0, START)


@pytest.mark.parametrize("metadata", [None, "opaque", {}, {"a": "1", "b": "\ud800"}])
async def test_metadata_comes_back_as_it_was(
    store: Store, metadata: str | dict[str, str] | None
) -> None:
    """Both dialects of metadata, and none, are told again as they came."""
    job = submission(metadata=metadata)

    await store.jobs.submit(job)

    assert (await store.jobs.get(job.id)).metadata == metadata


async def test_a_job_goes_its_whole_way(store: Store, clock: Clock) -> None:
    """A job that ran tells its real times, outputs as assets, timings and last progress."""
    lease = await running(store, owner="ann")
    clock.pass_seconds(3)
    end = StatusChanged(
        lease.job_id,
        JobStatus.SUCCEEDED,
        outputs_reused=True,
        timings=Timings(1.0, 3.0, {"3": 2.5}),
    )
    saved = await store.jobs.record(lease, [OutputSaved(lease.job_id, output())])

    told = await store.jobs.finish(lease, end, progress=Progress(1.0, 3, 3), expires_at=START + 50)

    job = await store.jobs.get(lease.job_id)
    assert [event.seq for event in (*saved, *told)] == [3, 4]
    assert (job.status, job.started_at, job.completed_at) == ("succeeded", START, START + 3)
    assert (job.timings, job.progress) == (end.timings, Progress(1.0, 3, 3))
    assert (job.outputs_reused, job.expires_at, job.last_event) == (True, START + 50, 4)
    (made,) = job.outputs
    assert isinstance(saved[0], OutputSaved)
    assert saved[0].output == made
    assert made.id is not None
    kept = await store.assets.get(made.id, "ann")
    assert (kept.hash, kept.job_id, kept.expires_at) == (made.hash, job.id, START + 50)


async def test_a_failed_job_says_why(store: Store) -> None:
    """The error of a failed job is told in full by the job and by its last event."""
    lease = await running(store)
    error = JobError("node_execution_error", "bad", "3", "KSampler", "ValueError", ("line 1",))

    await store.jobs.finish(lease, StatusChanged(lease.job_id, JobStatus.FAILED, error=error))

    last = (await store.jobs.events(lease.job_id))[-1]
    assert (await store.jobs.get(lease.job_id)).error == error
    assert isinstance(last, StatusChanged)
    assert last.error == error


async def test_events_are_resumed_after_a_number(store: Store) -> None:
    """A listener gets the events after the one it saw, in order, and no other job's."""
    lease = await running(store)
    await running(store)
    notes = [Noted(lease.job_id, "info", f"note {n}", {"n": str(n)}) for n in range(5)]

    await store.jobs.record(lease, notes)

    later = await store.jobs.events(lease.job_id, after=4)
    assert [event.seq for event in later] == [5, 6, 7]
    assert await store.jobs.events(lease.job_id, after=4, limit=1) == later[:1]


async def test_numbers_have_no_gaps_whoever_writes(store: Store) -> None:
    """Many writers at once number the events of a job 1, 2, 3.. all the same."""
    lease = await running(store)

    await asyncio.gather(
        *(store.jobs.record(lease, [Noted(lease.job_id, "info", str(n))] * 2) for n in range(50)),
        store.jobs.cancel(lease.job_id),
    )

    numbers = [event.seq for event in await store.jobs.events(lease.job_id)]
    assert numbers == list(range(1, 104))


@pytest.mark.parametrize("to", [JobStatus.SUCCEEDED, JobStatus.CANCELED, JobStatus.EXPIRED])
async def test_a_move_that_is_not_legal_changes_nothing(store: Store, to: JobStatus) -> None:
    """A queued job cannot succeed, nor a running one expire; nothing of such a write is kept."""
    lease = await running(store)
    await store.jobs.requeue(lease)
    lease = (await claimed(store)).lease
    if to is not JobStatus.SUCCEEDED:
        await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])
    before = await store.jobs.events(lease.job_id)

    with pytest.raises(IllegalMove):
        await store.jobs.finish(
            lease, status(lease, to), events=[OutputSaved(lease.job_id, output())]
        )

    assert await store.jobs.events(lease.job_id) == before
    assert (await store.jobs.get(lease.job_id)).outputs == ()


async def test_nobody_writes_after_the_end(store: Store) -> None:
    """Once a job ended, who ran it has no say any more."""
    lease = await running(store)
    await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED))

    with pytest.raises(LeaseLost):
        await store.jobs.record(lease, [Noted(lease.job_id, "info", "late")])
    with pytest.raises(LeaseLost):
        await store.jobs.finish(lease, status(lease, JobStatus.FAILED))


async def test_an_output_is_kept_once_whatever_runs_again(store: Store) -> None:
    """A second attempt does not repeat an output that the first one saved."""
    lease = await running(store)
    saved = OutputSaved(lease.job_id, output())
    await store.jobs.record(lease, [saved])
    await store.jobs.requeue(lease)
    lease = (await claimed(store)).lease

    told = await store.jobs.record(lease, [saved, OutputSaved(lease.job_id, output("b", index=1))])

    assert [event.seq for event in told] == [5]
    assert len((await store.jobs.get(lease.job_id)).outputs) == 2


async def test_a_hostile_output_name_is_kept(store: Store) -> None:
    """Names that no database takes as they are do not keep a job from ending."""
    lease = await running(store)
    bad = replace(
        output("a"), name="\ud800'; DROP TABLE jobs\0", subfolder="\udfff", node_id="\ud800"
    )

    await store.jobs.finish(
        lease, status(lease, JobStatus.SUCCEEDED), events=[OutputSaved(lease.job_id, bad)]
    )

    assert (await store.jobs.get(lease.job_id)).outputs[0].name == "?'; DROP TABLE jobs?"


async def test_a_requeued_job_runs_again_under_another_prompt_id(
    store: Store, clock: Clock
) -> None:
    """A lost attempt counts, is told, and the next has a prompt_id of its own."""
    lease = await running(store)
    first = await store.jobs.get(lease.job_id)

    told = await store.jobs.requeue(lease, note="The backend was lost.")

    waiting = await store.jobs.get(lease.job_id)
    again = await claimed(store, offers=[offer(store, backend="http://other:8188")])
    assert [type(event) for event in told] == [Noted, StatusChanged]
    assert (waiting.status, waiting.started_at) == (JobStatus.QUEUED, None)
    assert first.prompt_id == first.id
    assert again.record.prompt_id not in (None, first.id)
    attempts = await store.jobs.attempts(lease.job_id)
    assert [(one.number, one.backend) for one in attempts] == [
        (1, "http://gpu:8188"),
        (2, "http://other:8188"),
    ]
    assert [one.prompt_id for one in attempts] == [first.id, again.record.prompt_id]


async def test_an_attempt_that_never_was_does_not_count(store: Store) -> None:
    """A job that reached no backend keeps its attempts and its first prompt_id."""
    await store.jobs.submit(submission())
    lease = (await claimed(store)).lease

    told = await store.jobs.requeue(lease, counts=False)

    again = await claimed(store)
    assert told == ()
    assert (again.record.attempts, again.record.prompt_id) == (1, lease.job_id)
    with pytest.raises(LeaseLost):
        await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])


async def test_canceling(store: Store) -> None:
    """A waiting job ends at once, a running one is stopped by its holder, an ended one stays."""
    await store.jobs.submit(waits := submission())
    ended = await store.jobs.cancel(waits.id)
    lease = await running(store)

    asked = await store.jobs.cancel(lease.job_id)
    again = await store.jobs.cancel(lease.job_id)
    await store.jobs.finish(lease, status(lease, JobStatus.CANCELED))
    late = await store.jobs.cancel(lease.job_id)

    assert (ended.status, ended.lease) == (JobStatus.CANCELED, None)
    assert (asked.status, asked.lease) == (JobStatus.CANCELING, lease)
    assert (again.status, again.events) == (JobStatus.CANCELING, ())
    assert (late.status, late.events, late.lease) == (JobStatus.CANCELED, (), None)


async def test_a_job_that_was_claimed_but_not_begun_is_canceled_at_once(store: Store) -> None:
    """Its holder is named, has to take it back from its backend, and cannot write any more."""
    await store.jobs.submit(submission())
    lease = (await claimed(store)).lease

    gone = await store.jobs.cancel(lease.job_id)

    assert (gone.status, gone.lease) == (JobStatus.CANCELED, lease)
    with pytest.raises(LeaseLost):
        await store.jobs.record(lease, [status(lease, JobStatus.RUNNING)])


async def test_a_job_to_be_canceled_does_not_run_again(store: Store) -> None:
    """A backend that is lost while a job is being canceled ends the job as canceled."""
    lease = await running(store)
    await store.jobs.cancel(lease.job_id)

    await store.jobs.requeue(lease)

    assert (await store.jobs.get(lease.job_id)).status is JobStatus.CANCELED
    assert await store.jobs.claim("server", [Offer("b", ("",))], lease=30) is None


async def test_a_cancel_that_races_a_finish_leads_to_one_state(store: Store) -> None:
    """Whoever comes first, the job ends once and its events agree with it."""
    leases = [await running(store) for _ in range(20)]

    await asyncio.gather(
        *(store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED)) for lease in leases),
        *(store.jobs.cancel(lease.job_id) for lease in leases),
    )

    for lease in leases:
        events = await store.jobs.events(lease.job_id)
        ends = [event for event in events if event.is_last]
        assert ends == [events[-1]]
        assert (await store.jobs.get(lease.job_id)).status is JobStatus.SUCCEEDED


async def test_a_full_queue_refuses_and_keeps_the_key_good(store: Store) -> None:
    """Where as many wait as may, nothing is kept of the next, not even its key."""
    await store.jobs.submit(submission(), most_waiting=1)
    late = submission()

    with pytest.raises(QueueFull):
        await store.jobs.submit(late, most_waiting=1, key=KEY)

    with pytest.raises(NotFound):
        await store.jobs.get(late.id)
    await store.jobs.submit(late, most_waiting=2, key=KEY)
    assert await store.jobs.waiting() == 2


async def test_a_key_is_good_for_one_job(store: Store, clock: Clock) -> None:
    """The same key, owner and route cannot make two jobs, until the key's time is over."""
    await store.jobs.submit(submission(owner="ann"), key=KEY)
    twin = submission(owner="ann")

    with pytest.raises(IdempotencyKeyReused):
        await store.jobs.submit(twin, key=KEY)
    clock.pass_seconds(100)
    await store.jobs.submit(twin, key=KEY)

    assert len((await store.jobs.list("ann")).items) == 2


async def test_a_job_needs_bytes_that_are_kept(store: Store) -> None:
    """A file whose bytes are not kept is refused by name, and the job with it."""
    file = JobFile((("1", "image"),), hash_of("cat.png"), "cat.png", mask_of=("2", "image"))
    job = submission(files=(file, file))

    with pytest.raises(BlobNotFound) as refused:
        await store.jobs.submit(job)
    await store.assets.add(asset("cat.png"))
    await store.jobs.submit(job)

    assert refused.value.hashes == (file.hash,)
    assert (await claimed(store)).files == (file, file)


async def test_lists_come_in_pages_newest_first(store: Store) -> None:
    """Walking the pages gives every job once, newest first, also while new ones come."""
    ids = [job.id for job in [submission(owner="ann") for _ in range(7)]]
    for job_id in ids:
        await store.jobs.submit(submission(id=job_id, owner="ann"))
    await store.jobs.submit(submission(owner="bob"))
    seen: list[str] = []
    cursor: str | None = None

    for _ in range(4):
        page = await store.jobs.list("ann", cursor=cursor, limit=2)
        seen += [job.id for job in page.items]
        cursor = page.next_cursor
        await store.jobs.submit(submission(owner="ann"))

    assert (seen, cursor) == (ids[::-1], None)


async def test_lists_are_filtered(store: Store) -> None:
    """Owner, status, workflow and labels narrow a list, alone and together."""
    done = await succeeded(store, output(), owner="ann", workflow="a", metadata={"k": "1"})
    await store.jobs.submit(queued := submission(owner="ann", metadata={"k": "2", "l": "3"}))
    ended = [JobStatus.SUCCEEDED, JobStatus.FAILED]

    pages = [
        await store.jobs.list("ann"),
        await store.jobs.list("bob"),
        await store.jobs.list(statuses=ended),
        await store.jobs.list(workflow="a"),
        await store.jobs.list(labels={"k": "2", "l": "3"}),
        await store.jobs.list(labels={"k": "1", "l": "3"}),
        await store.jobs.list("ann", statuses=ended, labels={"k": "2"}),
    ]

    found = [[job.id for job in page.items] for page in pages]
    assert found == [[queued.id, done], [], [done], [done], [queued.id], [], []]
    assert len(pages[3].items[0].outputs) == 1


@pytest.mark.parametrize("cursor", ["", "x", "LTE", "MQ==", "é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ"])
async def test_a_made_up_cursor_is_refused(store: Store, cursor: str) -> None:
    """What no list gave out is no cursor."""
    with pytest.raises(InvalidCursor):
        await store.jobs.list(cursor=cursor)


async def test_jobs_of_others_are_not_there(store: Store) -> None:
    """Who asks for somebody else's job learns nothing, and changes nothing."""
    job_id = await succeeded(store, output(), owner="ann")

    for asked in (
        store.jobs.get(job_id, "bob"),
        store.jobs.graph(job_id, "bob"),
        store.jobs.cancel(job_id, "bob"),
        store.jobs.delete(job_id, "bob"),
    ):
        with pytest.raises(NotFound):
            await asked

    assert (await store.jobs.get(job_id, "ann")).id == job_id


async def test_a_job_is_gone_past_its_time_but_not_before_its_end(
    store: Store, clock: Clock
) -> None:
    """A job that is over is not there past `expires_at`; one that still runs always is."""
    over = await succeeded(store, expires_at=START + 10)
    runs = (await running(store, expires_at=START + 10)).job_id

    clock.pass_seconds(10)

    with pytest.raises(NotFound):
        await store.jobs.get(over)
    assert [job.id for job in (await store.jobs.list()).items] == [runs]
    assert await store.jobs.expired(START + 11) == (over,)
    assert await store.jobs.expired(START + 10) == ()


async def test_a_deleted_job_takes_its_outputs_with_it(store: Store) -> None:
    """Deleting a job forgets its events, outputs and their assets; other jobs keep theirs."""
    keeps = await succeeded(store, output("shared"))
    goes = await succeeded(store, output("shared"), output("own", index=1), metadata={"a": "b"})

    await store.jobs.delete(goes)

    assert await store.jobs.events(goes) == ()
    assert [one.job_id for one in (await store.assets.list()).items] == [keeps]
    unused = await store.assets.forget_unused_blobs([hash_of("shared"), hash_of("own")])
    assert unused == {hash_of("own")}


async def test_a_job_that_is_not_over_is_not_deleted(store: Store) -> None:
    """Queued and running jobs have to end first."""
    lease = await running(store)

    with pytest.raises(JobUnfinished):
        await store.jobs.delete(lease.job_id)

    assert (await store.jobs.get(lease.job_id)).status is JobStatus.RUNNING


async def test_who_ends_a_job_says_how_long_it_is_kept(store: Store, clock: Clock) -> None:
    """Canceled while it waited, given up, or canceled on its way back: each takes a new time."""
    waits, late = submission(), submission(queue_deadline=START + 1)
    lease = await running(store)
    await store.jobs.submit(waits)
    await store.jobs.submit(late)
    clock.pass_seconds(1)

    await store.jobs.cancel(waits.id, expires_at=START + 11)
    await store.jobs.expire_waiting(expires_at=START + 12)
    await store.jobs.cancel(lease.job_id, expires_at=START + 13)
    await store.jobs.requeue(lease, expires_at=START + 14)

    ids = (waits.id, late.id, lease.job_id)
    kept = [(await store.jobs.get(job_id)).expires_at - START for job_id in ids]
    assert kept == [11, 12, 14]


async def test_a_held_job_expires_until_it_begins(store: Store, clock: Clock) -> None:
    """Who holds jobs may have those expire that did not begin; one that runs has no deadline."""
    began = await running(store, queue_deadline=START + 1)
    await store.jobs.submit(submission(queue_deadline=START + 2))
    waits = (await claimed(store)).lease
    due = await store.jobs.next_queue_deadline(waits.holder)
    clock.pass_seconds(3)

    others = await store.jobs.expire_waiting(holder="somebody else")
    told = await store.jobs.expire_waiting(holder=waits.holder)

    assert (due, others) == (START + 2, ())
    assert [(event.job_id, event.seq) for event in told] == [(waits.job_id, 2)]
    assert (await store.jobs.get(began.job_id)).status is JobStatus.RUNNING
    with pytest.raises(LeaseLost):
        await store.jobs.requeue(waits)


async def test_a_job_that_ran_gets_a_new_deadline(store: Store) -> None:
    """It was begun in time once; one that no backend began keeps the deadline it had."""
    began = await running(store, queue_deadline=START + 5)
    await store.jobs.submit(submission(queue_deadline=START + 6))
    taken = (await claimed(store)).lease

    for lease in (began, taken):
        await store.jobs.requeue(lease, queue_deadline=START + 60)

    deadlines = [(await store.jobs.get(lease.job_id)).queue_deadline for lease in (began, taken)]
    assert deadlines == [START + 60, START + 6]
    assert await store.jobs.next_queue_deadline() == START + 6


async def test_secrets_are_noted_but_not_kept(store: Store) -> None:
    """That a job came with secrets lasts, in its record and its claim."""
    plain, secret = submission(), submission(has_extra_data=True, priority=1)
    await store.jobs.submit(plain)
    await store.jobs.submit(secret)

    claim = await claimed(store)

    assert (await store.jobs.get(secret.id)).has_extra_data
    assert not (await store.jobs.get(plain.id)).has_extra_data
    assert claim.record.has_extra_data


async def test_all_that_is_kept_is_told_in_order(store: Store) -> None:
    """Many who write at once, some canceled meanwhile: every event is told, by its number."""
    told: list[NumberedEvent] = []
    store.jobs.tell_to(told.extend)
    lease = await running(store)
    note = Noted(lease.job_id, "info", "note")
    writers = [asyncio.create_task(store.jobs.record(lease, [note])) for _ in range(50)]
    await asyncio.sleep(0)

    for writer in writers[::7]:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    await store.jobs.finish(lease, status(lease, JobStatus.SUCCEEDED))

    assert tuple(told) == await store.jobs.events(lease.job_id)
    assert [event.seq for event in told] == [*range(1, len(told) + 1)]
    assert len(told) == 53
