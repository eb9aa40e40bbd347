"""Every situation a client of ComfyUI meets, played from recordings over a real socket.

The promise under all of them: the job never hangs and its end is the true one. Which recording
proves what (the pure server probes are conformance tests of the built-in engine):

| recording | tests here |
|---|---|
| txt2img | runs_to_the_end, progress_never_goes_back, and most of the faults |
| txt2img_cached | a_fully_cached_run_delivers, a_new_seed_runs_only_what_changed |
| txt2img_preview_image | temp_outputs_are_delivered_when_nothing_else_is, kept_when_asked_for |
| img2img_upload | an_image_is_uploaded_once |
| no_model | a_graph_without_a_model |
| batch_size_2 | a_batch_is_two_outputs |
| two_outputs | several_output_nodes |
| other_outputs | every_kind_of_output (12 runs) |
| save_image_websocket | pictures_sent_only_over_the_socket, .. with node ids |
| cached_output_file_gone | a_vanished_file_is_made_again |
| execution_error | a_node_error_is_told, partial_outputs_stay |
| custom_nodes | error types, out of memory, blocked, expanded, odd outputs, lists |
| prompt_errors | a_rejected_graph (36 bodies) |
| prompt_accepted_oddities | a_partly_valid_graph_says_what_is_left_out |
| interrupt_global | interrupted_by_someone_else |
| interrupt_prompt_id | cancel_interrupts_exactly_our_job |
| queue_delete_and_clear | removed_from_the_queue, a_canceled_waiting_job |
| history_race | history_may_come_late (20 runs) |
| history_endpoints | a_run_whose_history_is_read_many_ways |
| client_prompt_id | our_own_id_is_used |
| priority_and_order | the_place_in_the_queue |
| extra_data | extra_data_is_passed_on |
| two_clients | other_jobs_on_the_socket |
| feature_flags | previews_name_their_node |
| preview_none_and_limits | no_previews_no_harm |
| progress_text | a_text_frame_is_the_progress_message |
| ws_reconnect_midrun | the_socket_is_lost_mid_run, .. until_after_the_end |
| ws_late_connect | the_socket_opens_mid_run |
| ws_same_client_id_twice | a_deaf_socket_is_replaced |
| slow_reader | a_stalled_server_is_waited_for |
| keepalive | a_quiet_connection_stays |
| server_stop_midrun | the_server_stops_mid_run (SIGINT, SIGTERM, SIGKILL) |
| poison_prompts | a_server_that_chokes |
| misc_endpoints, upload_variants, view_endpoint | an_odd_neighbourhood |
"""

from __future__ import annotations

import asyncio
import json
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from comfyserve.assets import InputFile, Upload, content_type
from comfyserve.client.output_folder import OutputFolder
from comfyserve.comfy.backend import Timeouts
from comfyserve.errors import (
    BackendAnswerInvalid,
    BackendUnreachable,
    GraphRejected,
    OutputUnwritable,
)
from comfyserve.events import Event, OutputSaved, StatusChanged
from comfyserve.execution import Execution
from comfyserve.jobs import Job, JobStatus
from tests.stories import HASTY, Story, connected, recorded_graph, tell
from tests.traces.faults import (
    Answer,
    DropSocket,
    EmptyHistory,
    Fault,
    GoSilent,
    Hang,
    Hold,
    HoldAnswer,
    Inject,
    Kill,
    RefuseSockets,
    Vanish,
    Withhold,
)
from tests.traces.lines import Sent
from tests.traces.recording import Recording
from tests.traces.replay import Replay

pytestmark = pytest.mark.timeout(30)


async def play(
    folder: Path,
    name: str,
    *faults: Fault,
    run: int = 0,
    timeouts: Timeouts = HASTY,
    speed: float = 50.0,
    jobs: int = 1,
    **options: Any,
) -> tuple[Story, Replay]:
    """Play one recorded run to our client, with faults."""
    async with (
        Replay(name, *faults, run=run, speed=speed, jobs=jobs) as replay,
        connected(replay.url, timeouts) as backend,
    ):
        story = await tell(backend, folder, recorded_graph(name, run), **options)
        return story, replay


def run_of(name: str, note: str) -> int:
    """The number of the recorded run that comes right after the note that begins like that."""
    recording = Recording.load(name)
    line = next(
        index
        for index, line in enumerate(recording.lines)
        if getattr(line, "text", "").startswith(note)
    )
    return next(run.index for run in recording.runs if run.post > line)


# A plain run


async def test_runs_to_the_end(tmp_path: Path) -> None:
    """A run ends as a success with its picture, byte for byte, and real facts about it."""
    story, replay = await play(tmp_path, "txt2img")

    assert story.statuses == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    [output] = story.outputs
    _, recorded = Recording.load("txt2img").exchanges(
        "GET", "/view?filename=ComfyUI_00001_.png&subfolder=&type=output"
    )[0]
    assert story.bytes_of(output) == recorded.body
    assert (output.name, output.content_type, output.type) == (
        "ComfyUI_00001_.png",
        "image/png",
        "image",
    )
    assert output.size_bytes == len(recorded.body)
    assert not story.last.outputs_reused
    assert story.last.timings.running > 0
    assert replay.sockets[0].first == {
        "type": "feature_flags",
        "data": {"supports_preview_metadata": True},
    }


async def test_progress_never_goes_back(tmp_path: Path) -> None:
    """Progress only grows, ends at 1, and names the node and its step on the way."""
    story, _ = await play(tmp_path, "txt2img")

    values = [progress.value for progress in story.progress]
    assert all(before <= after for before, after in pairwise(values))
    assert values[-1] == 1.0
    assert all(p.nodes_done <= p.nodes_total for p in story.progress)
    steps = [(p.current_node_class, p.step, p.steps) for p in story.progress if p.step]
    assert steps[-1] == ("KSampler", 4, 4)
    assert all(
        event.output in story.outputs and story.events.index(event) < len(story.events) - 1
        for event in story.events
        if isinstance(event, OutputSaved)
    )


async def test_our_own_id_is_used(tmp_path: Path) -> None:
    """The job's id is the prompt_id, and nobody else's."""
    story, replay = await play(tmp_path, "client_prompt_id")

    [post] = replay.calls("POST", "/prompt")
    assert post.json["prompt_id"] == story.last.job_id
    assert post.json["client_id"] == replay.sockets[0].client_id


async def test_previews_name_their_node(tmp_path: Path) -> None:
    """With the handshake each preview says which node it is of."""
    run = next(
        run.index
        for run in Recording.load("feature_flags").runs
        if any(
            message.type == "binary" and message.frame[3] == 4
            for _, message in Recording.load("feature_flags").messages(run.client_id, run.post)
            if message.frame
        )
    )
    story, _ = await play(tmp_path, "feature_flags", run=run)

    assert story.previews
    assert {preview.node_id for preview in story.previews} == {"3"}
    assert all(content_type(p.data) == p.content_type == "image/jpeg" for p in story.previews)


async def test_previews_without_the_handshake_belong_to_the_running_node(tmp_path: Path) -> None:
    """A preview that names no node is of the node that runs."""
    story, _ = await play(tmp_path, "txt2img")

    assert {preview.node_id for preview in story.previews} == {"3"}


async def test_no_previews_no_harm(tmp_path: Path) -> None:
    """A server that draws no previews runs the job all the same."""
    story, _ = await play(tmp_path, "preview_none_and_limits")

    assert story.last.status is JobStatus.SUCCEEDED
    assert not story.previews


async def test_a_text_frame_is_the_progress_message(tmp_path: Path) -> None:
    """What a node says of itself while it works is part of the progress."""
    story, _ = await play(tmp_path, "progress_text")

    assert any("16" in (progress.message or "") for progress in story.progress)
    assert [story.bytes_of(output) for output in story.outputs] == [b"16"]


async def test_a_graph_without_a_model(tmp_path: Path) -> None:
    """Every run without a model ends with its picture."""
    for run in range(len(Recording.load("no_model").runs)):
        story, _ = await play(tmp_path / str(run), "no_model", run=run)
        assert story.last.status is JobStatus.SUCCEEDED
        assert [output.type for output in story.outputs] == ["image"]


async def test_a_quiet_connection_stays(tmp_path: Path) -> None:
    """A connection on which nothing happens for long serves the next job."""
    story, replay = await play(tmp_path, "keepalive")

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(replay.sockets) == 1


async def test_extra_data_is_passed_on(tmp_path: Path) -> None:
    """What the job carries for the nodes reaches the server and nobody else."""
    async with Replay("extra_data") as replay, connected(replay.url) as backend:
        graph = recorded_graph("extra_data")
        story = await tell(
            backend, tmp_path, graph, extra_data={"extra_pnginfo": {"workflow": {"id": 1}}}
        )

    [post] = replay.calls("POST", "/prompt")
    assert post.json["extra_data"] == {"extra_pnginfo": {"workflow": {"id": 1}}}
    assert story.last.status is JobStatus.SUCCEEDED


# Outputs


async def test_a_batch_is_two_outputs(tmp_path: Path) -> None:
    """Two pictures in one output are two outputs with names of their own."""
    story, _ = await play(tmp_path, "batch_size_2")

    assert [output.index for output in story.outputs] == [0, 1]
    assert len({output.location for output in story.outputs}) == 2


async def test_several_output_nodes(tmp_path: Path) -> None:
    """Every output node delivers."""
    expected = len(
        [m for _, m in Recording.load("two_outputs").messages("client-a") if m.type == "executed"]
    )
    seen = 0
    for run in (run.index for run in Recording.load("two_outputs").runs if run.accepted):
        story, _ = await play(tmp_path / str(run), "two_outputs", run=run, keep_temp=True)
        assert story.last.status is JobStatus.SUCCEEDED
        seen += len({output.node_id for output in story.outputs})
    assert seen == expected


OTHER_OUTPUTS = [
    ("SaveAnimatedWEBP", "image/webp", "image"),
    ("SaveAnimatedPNG", "image/png", "image"),
    ("SaveAudio (flac)", "audio/flac", "audio"),
    ("SaveAudioMP3", "audio/mpeg", "audio"),
    ("SaveAudioOpus", "audio/ogg", "audio"),
    ("PreviewAudio", "audio/flac", "audio"),
    ("PreviewAny text", "text/plain", "text"),
    ("PreviewAny int", "text/plain", "text"),
    ("SaveLatent", "application/x-comfyui-latent", "latent"),
    ("SaveWEBM", "video/webm", "video"),
    ("CreateVideo + SaveVideo mp4", "video/mp4", "video"),
    ("PreviewImage + MaskPreview", "image/png", "image"),
]


@pytest.mark.parametrize(("note", "mime", "kind"), OTHER_OUTPUTS)
async def test_every_kind_of_output(tmp_path: Path, note: str, mime: str, kind: str) -> None:
    """No kind of output is dropped, and its type is told from its bytes."""
    story, _ = await play(tmp_path, "other_outputs", run=run_of("other_outputs", note))

    assert story.last.status is JobStatus.SUCCEEDED
    [output] = story.outputs
    assert (output.content_type, output.type) == (mime, kind)
    content = story.bytes_of(output)
    assert len(content) == output.size_bytes
    relative = Path(output.location).relative_to(tmp_path)
    expected = Path("temp" if output.temp else "", output.subfolder, output.name)
    assert relative == expected


async def test_temp_outputs_are_delivered_when_nothing_else_is(tmp_path: Path) -> None:
    """A graph that only previews still gives its picture, marked and under temp."""
    story, _ = await play(tmp_path, "txt2img_preview_image")

    [output] = story.outputs
    assert output.temp
    assert Path(output.location).parent == tmp_path / "temp"


async def test_temp_outputs_are_kept_when_asked_for(tmp_path: Path) -> None:
    """Asking for temporary files brings them the moment they are announced."""
    story, _ = await play(tmp_path, "txt2img_preview_image", keep_temp=True)

    assert [output.temp for output in story.outputs] == [True]


@pytest.mark.parametrize("run", [0, 1, 2])
async def test_pictures_sent_only_over_the_socket(tmp_path: Path, run: int) -> None:
    """SaveImageWebsocket's pictures are outputs, with or without a node named in the frame."""
    story, _ = await play(tmp_path, "save_image_websocket", run=run)

    assert story.last.status is JobStatus.SUCCEEDED
    assert [output.content_type for output in story.outputs] == ["image/png", "image/png"]
    assert {output.node_id for output in story.outputs} == {"4"}
    assert not story.previews


async def test_live_pictures_lost_with_the_socket_fail_the_job(tmp_path: Path) -> None:
    """Pictures that only the socket carries cannot be had again, and the job says so."""
    story, _ = await play(tmp_path, "save_image_websocket", DropSocket("binary", refuse=50))

    assert story.error.code == "output_unavailable"
    assert "SaveImage" in story.error.message


async def test_a_file_is_fetched_again_when_the_connection_breaks(tmp_path: Path) -> None:
    """A download that fails once is tried again; the output is whole."""
    story, replay = await play(tmp_path, "txt2img", Answer("/view", 500, "busy", times=0))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(replay.calls("GET", "/view")) == 1


async def test_a_file_that_cannot_be_had_fails_the_job(tmp_path: Path) -> None:
    """When /view answers an error, the job fails and quotes what the server said."""
    story, _ = await play(tmp_path, "txt2img", Answer("/view", 500, "disk on fire"))

    assert story.error.code == "output_unavailable"
    assert "disk on fire" in story.error.message


async def test_a_file_that_is_gone_after_a_fresh_run_fails_the_job(tmp_path: Path) -> None:
    """A file that the server made and lost at once is a clear error, and nothing runs again."""
    story, replay = await play(tmp_path, "txt2img", Answer("/view", 404))

    assert story.error.code == "output_unavailable"
    assert "ComfyUI_00001_.png" in story.error.message
    assert len(replay.calls("POST", "/prompt")) == 1


async def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    """The next free name is taken when the folder has a file of that name."""
    (tmp_path / "ComfyUI_00001_.png").write_bytes(b"mine")

    story, _ = await play(tmp_path, "txt2img")

    assert (tmp_path / "ComfyUI_00001_.png").read_bytes() == b"mine"
    assert Path(story.outputs[0].location).name == "ComfyUI_00001_ (1).png"


async def test_a_hostile_name_stays_in_the_folder(tmp_path: Path) -> None:
    """A name from the server can never leave the output folder."""
    hostile = {
        "images": [
            {"filename": "../../evil.png", "subfolder": "../../..", "type": "output"},
            {"filename": "/etc/passwd", "subfolder": "C:\\Windows", "type": "output"},
        ]
    }
    message = {
        "type": "executed",
        "data": {"node": "9", "output": hostile, "prompt_id": "$PROMPT_ID"},
    }
    folder = tmp_path / "a" / "b"
    story, _ = await play(
        folder, "txt2img", Inject("executed", (json.dumps(message),)), Answer("/view", 200, b"?")
    )

    assert [output.name for output in story.outputs[:2]] == ["../../evil.png", "/etc/passwd"]
    assert all(path.is_relative_to(folder) for path in _files_below(tmp_path))


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The cache


async def test_a_fully_cached_run_delivers(tmp_path: Path) -> None:
    """A run that is cached as a whole delivers its outputs and says they are reused."""
    cached = next(
        run.index
        for run in Recording.load("txt2img_cached").runs
        if _is_fully_cached("txt2img_cached", run.index)
    )
    story, _ = await play(tmp_path, "txt2img_cached", run=cached)

    assert story.last.status is JobStatus.SUCCEEDED
    assert story.last.outputs_reused
    assert len(story.outputs) == 1
    assert story.progress[-1].value == 1.0


async def test_a_new_seed_runs_only_what_changed(tmp_path: Path) -> None:
    """Cached nodes count as done at once, and a run that made a new file is not reused."""
    partly = next(
        run.index
        for run in Recording.load("txt2img_cached").runs
        if 0 < _cached_nodes("txt2img_cached", run.index) < 7
        and not _is_fully_cached("txt2img_cached", run.index)
    )
    story, _ = await play(tmp_path, "txt2img_cached", run=partly)

    assert not story.last.outputs_reused
    cached = _cached_nodes("txt2img_cached", partly)
    assert any(progress.nodes_done == cached for progress in story.progress)


def _cached_nodes(name: str, run: int) -> int:
    entry = Recording.load(name).runs[run].entry
    assert entry is not None
    messages = dict(entry["status"]["messages"])
    return len(messages["execution_cached"]["nodes"])


def _is_fully_cached(name: str, run: int) -> bool:
    return _cached_nodes(name, run) == len(recorded_graph(name, run))


async def test_a_vanished_file_is_made_again(tmp_path: Path) -> None:
    """When a cached run names a deleted file, the cache is freed and the graph runs once more."""
    async with (
        Replay("cached_output_file_gone", run=1, jobs=2) as replay,
        connected(replay.url) as backend,
    ):
        story = await tell(backend, tmp_path, recorded_graph("cached_output_file_gone", 1))

    assert story.last.status is JobStatus.SUCCEEDED
    assert not story.last.outputs_reused
    assert len(story.outputs) == 1
    first, second = (call.json["prompt_id"] for call in replay.calls("POST", "/prompt"))
    assert first == story.last.job_id != second
    assert len(replay.calls("POST", "/free")) == 1
    assert story.statuses == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]


async def test_a_file_that_stays_away_is_a_clear_error(tmp_path: Path) -> None:
    """When running once more does not help, the job fails and names the file."""
    async with (
        Replay("cached_output_file_gone", Answer("/view", 404), run=1, jobs=2) as replay,
        connected(replay.url) as backend,
    ):
        story = await tell(backend, tmp_path, recorded_graph("cached_output_file_gone", 1))

    assert story.error.code == "output_unavailable"
    assert "gone_" in story.error.message
    assert len(replay.calls("POST", "/prompt")) == 2


# Errors of the graph


def _rejected_runs() -> list[int]:
    return [
        run.index
        for run in Recording.load("prompt_errors").runs
        if run.answer is not None and run.answer.status == 400 and _posted_graph(run.body)
    ]


def _posted_graph(body: dict[str, Any]) -> bool:
    return isinstance(body.get("prompt"), dict) and bool(body["prompt"])


@pytest.mark.parametrize("run", _rejected_runs())
async def test_a_rejected_graph(tmp_path: Path, run: int) -> None:
    """A graph the server will not run is an error with the server's reasons, node by node."""
    answer = Recording.load("prompt_errors").runs[run].answer
    assert answer is not None and isinstance(answer.json, dict)

    with pytest.raises(GraphRejected) as caught:
        await play(tmp_path, "prompt_errors", run=run)

    assert caught.value.node_errors == answer.json["node_errors"]
    for told in answer.json["node_errors"].values():
        for error in told["errors"]:
            assert error["message"] in str(caught.value)


async def test_a_partly_valid_graph_says_what_is_left_out(tmp_path: Path) -> None:
    """What the server skips is told, and the rest is delivered."""
    run = run_of("prompt_accepted_oddities", "partly valid")
    story, _ = await play(tmp_path, "prompt_accepted_oddities", run=run)

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1
    assert any("left out" in note and "20" in note for note in story.notes)


async def test_odd_graphs_that_are_accepted_run(tmp_path: Path) -> None:
    """Whatever the server accepts is followed to its end."""
    for run in Recording.load("prompt_accepted_oddities").runs:
        if run.accepted and run.entry is not None:
            story, _ = await play(
                tmp_path / str(run.index), "prompt_accepted_oddities", run=run.index
            )
            assert story.last.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)


async def test_a_node_error_is_told(tmp_path: Path) -> None:
    """A failing node ends the job with its id, class, message and exception type."""
    story, _ = await play(tmp_path, "custom_nodes", run=run_of("custom_nodes", "LabFail Runtime"))

    assert story.error.code == "node_execution_error"
    assert (story.error.node_id, story.error.class_type) == ("2", "LabFail")
    assert story.error.message == "boom: the node failed"
    assert story.error.exception_type == "RuntimeError"
    assert story.error.traceback


async def test_an_error_without_a_message_is_still_a_sentence(tmp_path: Path) -> None:
    """An exception without words is told by its type."""
    story, _ = await play(tmp_path, "custom_nodes", run=run_of("custom_nodes", "LabFail empty"))

    assert story.error.exception_type == "RuntimeError"
    assert story.error.message


async def test_out_of_memory_has_its_own_code(tmp_path: Path) -> None:
    """Running out of memory is told apart from other errors."""
    story, _ = await play(tmp_path, "custom_nodes", run=run_of("custom_nodes", "LabFail OutOf"))

    assert story.error.code == "out_of_memory"


async def test_partial_outputs_stay(tmp_path: Path) -> None:
    """Outputs that were finished before the error are delivered, then the failure."""
    found = 0
    for run in Recording.load("execution_error").runs:
        entry = run.entry
        if entry is None or not run.client_id:
            continue
        story, _ = await play(tmp_path / str(run.index), "execution_error", run=run.index)
        if entry["status"]["status_str"] == "error":
            assert story.error.node_id is not None
        files = [file for ui in entry["outputs"].values() for file in ui.get("images", ())]
        assert len(story.outputs) == len(files)
        found += bool(files) and entry["status"]["status_str"] == "error"
    assert found


async def test_a_blocked_output_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    """A run that calls itself a success after blocking its only output has failed."""
    run = run_of("custom_nodes", "LabBlock with a message")
    story, _ = await play(tmp_path, "custom_nodes", run=run)

    assert story.error.code == "job_blocked"
    assert "not allowed" in story.error.message


async def test_a_silently_blocked_output_is_noted(tmp_path: Path) -> None:
    """A success without any output says that there is none."""
    run = run_of("custom_nodes", "LabBlock silent")
    story, _ = await play(tmp_path, "custom_nodes", run=run)

    assert story.last.status is JobStatus.SUCCEEDED
    assert not story.outputs
    assert any("no node saved" in note for note in story.notes)


@pytest.mark.parametrize("note", ["LabExpand: inner", "LabExpand with a SaveImage", "the same"])
async def test_expanded_nodes_deliver(tmp_path: Path, note: str) -> None:
    """Nodes that grow others inside count once, and inner outputs are delivered too."""
    run = run_of("custom_nodes", note)
    story, _ = await play(tmp_path, "custom_nodes", run=run)

    entry = Recording.load("custom_nodes").runs[run].entry
    assert entry is not None
    assert {output.node_id for output in story.outputs} == set(entry["outputs"])
    assert all(progress.nodes_done <= progress.nodes_total for progress in story.progress)


async def test_odd_outputs_give_every_file_and_string(tmp_path: Path) -> None:
    """Files and strings under any word are outputs; numbers and flags are not."""
    story, _ = await play(tmp_path, "custom_nodes", run=run_of("custom_nodes", "LabWeirdUi"))

    assert [(output.key, output.index) for output in story.outputs] == [
        ("gifs", 0),
        ("string", 0),
        ("string", 1),
        ("string", 2),
    ]


async def test_a_list_of_pictures_is_delivered_whole(tmp_path: Path) -> None:
    """A node that runs once per list item gives all its pictures."""
    story, _ = await play(tmp_path, "custom_nodes", run=run_of("custom_nodes", "LabImageList 3"))

    assert len({output.name for output in story.outputs}) == 3


# Uploads


async def test_an_image_is_uploaded_once(tmp_path: Path) -> None:
    """The image reaches the server under a safe name, the graph names it, and once is enough."""
    picture = Upload("my cat (1) ü.png", content=_png())
    file = InputFile((("10", "image"),), picture)
    graph = recorded_graph("img2img_upload")
    [load] = [node for node, entry in graph.items() if entry["class_type"] == "LoadImage"]
    file = InputFile(((load, "image"),), picture)
    async with Replay("img2img_upload", jobs=1) as replay, connected(replay.url) as backend:
        story = await tell(backend, tmp_path, graph, files=(file,))
        await backend.upload(picture)

    assert story.last.status is JobStatus.SUCCEEDED
    [upload] = replay.calls("POST", "/upload/image")
    assert upload.part("image").content == picture.content
    name = upload.part("image").filename
    assert name is not None and name.isascii() and name.endswith(".png")
    assert upload.text("type") == "input"
    [post] = replay.calls("POST", "/prompt")
    assert post.json["prompt"][load]["inputs"]["image"].endswith(name)
    assert graph[load]["inputs"]["image"] != post.json["prompt"][load]["inputs"]["image"]


def _png() -> bytes:
    _, answer = Recording.load("txt2img").exchanges(
        "GET", "/view?filename=ComfyUI_00001_.png&subfolder=&type=output"
    )[0]
    assert answer.body is not None
    return answer.body


# Somebody else


async def test_other_jobs_on_the_socket(tmp_path: Path) -> None:
    """Messages of other people's jobs change nothing about ours."""
    foreign = str(uuid.uuid4())
    frames = (
        _message("execution_start", prompt_id=foreign),
        _message("executing", node="3", prompt_id=foreign),
        _message("progress", value=9, max=9, node="3", prompt_id=foreign),
        _message("execution_error", prompt_id=foreign, node_id="3", exception_message="no"),
        _message("executing", node=None, prompt_id=foreign),
    )
    story, _ = await play(tmp_path, "two_clients", Inject("executing", frames))

    assert story.last.status is JobStatus.SUCCEEDED
    assert all(progress.step != 9 for progress in story.progress)


async def test_interrupted_by_someone_else(tmp_path: Path) -> None:
    """An interrupt that we did not ask for is a failure that says so."""
    story, _ = await play(
        tmp_path, "interrupt_global", Inject("executing", (_interrupted(),)), Withhold("progress")
    )

    assert story.error.code == "job_interrupted"
    assert "Someone else" in story.error.message


def _interrupted() -> str:
    return _message(
        "execution_interrupted", prompt_id="$PROMPT_ID", node_id="3", node_type="KSampler"
    )


def _message(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data})


async def test_removed_from_the_queue_by_someone_else(tmp_path: Path) -> None:
    """A waiting job that someone deletes ends within moments, though no message says so."""
    async with (
        Replay("queue_delete_and_clear", Vanish(0), run=1) as replay,
        connected(replay.url) as backend,
    ):
        story = await tell(backend, tmp_path, recorded_graph("queue_delete_and_clear", 1))

    assert story.error.code == "job_removed"


async def test_the_place_in_the_queue(tmp_path: Path) -> None:
    """A waiting job tells its place, which counts from 1 in the order of running."""
    name = "priority_and_order"
    run = next(r for r in Recording.load(name).runs if Recording.load(name).waiting_before(r))
    async with Replay(name, run=run.index, speed=4) as replay, connected(replay.url) as backend:
        story = await tell(backend, tmp_path, recorded_graph(name, run.index))

    places = [
        event.queue_position
        for event in story.events
        if isinstance(event, StatusChanged) and event.queue_position is not None
    ]
    assert all(place >= 1 for place in places)
    assert story.last.status is JobStatus.SUCCEEDED


# Canceling


async def test_cancel_interrupts_exactly_our_job(tmp_path: Path) -> None:
    """Cancel names our prompt, and the job ends as canceled."""

    name = "interrupt_prompt_id"
    story, replay = await play(tmp_path, name, Hold("progress"), watch=_cancel_when_running)

    assert story.last.status is JobStatus.CANCELED
    assert JobStatus.CANCELING in story.statuses
    [interrupt] = replay.calls("POST", "/interrupt")
    assert interrupt.json == {"prompt_id": story.last.job_id}


async def _cancel_when_running(event: Event, execution: Execution) -> None:
    if isinstance(event, StatusChanged) and event.status is JobStatus.RUNNING:
        await execution.cancel()


async def test_a_canceled_waiting_job(tmp_path: Path) -> None:
    """A waiting job leaves the queue; nothing is interrupted."""

    async def cancel_at_once(event: Event, execution: Execution) -> None:
        if isinstance(event, StatusChanged) and event.queue_position is not None:
            await execution.cancel()

    async with (
        Replay("queue_delete_and_clear", Hold(0), run=1) as replay,
        connected(replay.url) as backend,
    ):
        graph = recorded_graph("queue_delete_and_clear", 1)
        story = await tell(backend, tmp_path, graph, watch=cancel_at_once)

    assert story.last.status is JobStatus.CANCELED
    assert [call.json for call in replay.calls("POST", "/queue")] == [
        {"delete": [story.last.job_id]}
    ]
    assert not replay.calls("POST", "/interrupt")


async def test_cancel_before_anything_was_sent(tmp_path: Path) -> None:
    """A job that is canceled before it was submitted never reaches the server."""

    async def cancel_at_once(event: Event, execution: Execution) -> None:
        if isinstance(event, StatusChanged) and event.status is JobStatus.QUEUED:
            await execution.cancel()

    story, replay = await play(tmp_path, "txt2img", watch=cancel_at_once)

    assert story.last.status is JobStatus.CANCELED
    assert not replay.calls("POST", "/prompt")


async def test_a_cancel_that_comes_too_late_is_a_success(tmp_path: Path) -> None:
    """A job that finished before the cancel took hold is told as what it is."""

    async def cancel_at_output(event: Event, execution: Execution) -> None:
        if isinstance(event, OutputSaved):
            await execution.cancel()

    story, _ = await play(tmp_path, "txt2img", watch=cancel_at_output)

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


# The socket


@pytest.mark.parametrize("at", ["execution_start", "executing", "progress", "executed", "end"])
async def test_the_socket_is_lost_mid_run(tmp_path: Path, at: str) -> None:
    """Wherever the socket breaks, it is opened again and the job ends with its output."""
    story, replay = await play(tmp_path, "txt2img", DropSocket(at))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1
    assert any("lost" in note for note in story.notes)
    assert len(replay.calls("POST", "/prompt")) == 1


async def test_the_socket_comes_back_mid_run(tmp_path: Path) -> None:
    """After a reconnect progress goes on from where the server is, with the same client id."""
    story, replay = await play(tmp_path, "ws_reconnect_midrun", DropSocket("progress"), speed=5)

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(replay.sockets) >= 2
    assert len({socket.client_id for socket in replay.sockets}) == 1
    assert any((progress.step or 0) > 20 for progress in story.progress)
    assert all(socket.first is not None for socket in replay.sockets[:2])


async def test_the_socket_stays_away_until_after_the_end(tmp_path: Path) -> None:
    """With no socket at all the server is asked, and the job ends with its output."""
    story, _ = await play(tmp_path, "ws_reconnect_midrun", DropSocket("progress", refuse=1000))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_no_socket_at_all(tmp_path: Path) -> None:
    """A server whose socket is never to be had, as behind a poor proxy, still serves the job."""
    story, _ = await play(tmp_path, "txt2img", RefuseSockets(1000))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1
    assert any("asking instead" in note for note in story.notes)


async def test_the_socket_opens_mid_run(tmp_path: Path) -> None:
    """A socket that opens while the job runs already is used from there on."""
    story, _ = await play(tmp_path, "ws_late_connect", RefuseSockets(1), speed=5)

    assert story.last.status is JobStatus.SUCCEEDED
    assert any(progress.step for progress in story.progress)


@pytest.mark.parametrize("at", [0, "executing", "executed", "end"])
async def test_a_silent_socket(tmp_path: Path, at: str | int) -> None:
    """A socket that is open and says nothing more cannot hang the job."""
    story, _ = await play(tmp_path, "txt2img", GoSilent(at))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_a_deaf_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that said nothing of a whole job is closed, and the next job is heard live.

    In the recording the server has forgotten the newer of two sockets of one client before the
    second run, and knows a third one again.
    """
    name = "ws_same_client_id_twice"
    async with Replay(name, jobs=3) as replay, connected(replay.url) as backend:
        first, deaf, third = [
            await tell(backend, tmp_path, recorded_graph(name, run)) for run in range(3)
        ]

    assert {story.last.status for story in (first, deaf, third)} == {JobStatus.SUCCEEDED}
    assert {progress.current_node_class for progress in deaf.progress} == {None}
    assert "SaveImage" in {progress.current_node_class for progress in third.progress}
    assert len(replay.sockets) == 2


@pytest.mark.parametrize(
    "kind",
    ["execution_start", "execution_cached", "executing", "executed", "execution_success", "end"],
)
async def test_a_message_that_never_comes(tmp_path: Path, kind: str) -> None:
    """No single kind of message is needed for the job to end well."""
    story, _ = await play(tmp_path, "txt2img", Withhold(kind))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_unknown_messages_and_malformed_frames(tmp_path: Path) -> None:
    """What cannot be read, or means nothing to us, is passed over."""
    frames: tuple[str | bytes, ...] = (
        "this is not JSON",
        "[1, 2, 3]",
        '{"type": 7}',
        '{"type": "executing"}',
        '{"type": "progress", "data": {"value": "x", "prompt_id": "$PROMPT_ID"}}',
        '{"type": "executed", "data": {"prompt_id": "$PROMPT_ID"}}',
        _message("crystools.monitor", cpu=3),
        _message("logs", entries=[]),
        b"",
        b"\x00\x00\x00",
        b"\x00\x00\x00\x04\xff\xff\xff\xff{",
        b"\x00\x00\x00\x04\x00\x00\x00\x02[]x",
        b"\x00\x00\x00\x63\x00\x00\x00\x00whatever",
        b"\x00\x00\x00\x03\x00\x00\x00\xffab",
    )
    story, _ = await play(tmp_path, "txt2img", Inject("executing", frames))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_messages_come_before_the_answer(tmp_path: Path) -> None:
    """Messages that overtake the answer of the POST are not lost."""
    story, _ = await play(tmp_path, "txt2img", HoldAnswer(1000))

    assert story.last.status is JobStatus.SUCCEEDED
    assert [p.step for p in story.progress if p.step][-1] == 4
    assert story.previews


async def test_a_server_that_chooses_its_own_id(tmp_path: Path) -> None:
    """An old server that ignores our prompt_id is followed under the id it chose."""
    taken = Recording.load("txt2img").runs[0].prompt_id
    answer = Answer(
        "/prompt", 200, {"prompt_id": taken, "number": 0, "node_errors": {}}, method="POST"
    )
    frames = (
        _message("execution_start", prompt_id=taken),
        _message("execution_error", prompt_id=taken, node_id="3", exception_message="own id"),
        _message("executing", node=None, prompt_id=taken),
    )
    async with Replay("txt2img", answer) as replay, connected(replay.url) as backend:
        assert await backend.socket.opened(2)
        for frame in frames:
            await replay.send(frame)
        story = await tell(backend, tmp_path, recorded_graph("txt2img"))

    assert story.error.message == "own id"


# History


@pytest.mark.parametrize("run", range(20))
async def test_history_may_come_late(tmp_path: Path, run: int) -> None:
    """However early the end is told, the outputs are all there."""
    story, _ = await play(tmp_path, "history_race", run=run)

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


@pytest.mark.parametrize("reads", [1, 3])
async def test_history_is_empty_at_first(tmp_path: Path, reads: int) -> None:
    """A history that is empty at the first reads is read again."""
    story, _ = await play(tmp_path, "txt2img", EmptyHistory(reads), Withhold("executed"))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_a_history_that_stays_empty_believes_what_was_heard(tmp_path: Path) -> None:
    """A history that somebody cleared does not undo a success that was heard."""
    story, _ = await play(tmp_path, "history_endpoints", EmptyHistory(1000))

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


# The server


@pytest.mark.parametrize("at", ["execution_start", "progress", "executed"])
async def test_the_server_stops_mid_run(tmp_path: Path, at: str) -> None:
    """A server that dies takes its job with it, and the client says so within moments."""
    story, _ = await play(tmp_path, "server_stop_midrun", Kill(at), speed=5)

    assert story.error.code == "backend_lost"


async def test_every_recorded_stop_is_told(tmp_path: Path) -> None:
    """SIGINT, SIGTERM and SIGKILL alike end a running job as lost, or as what it was."""
    for run in Recording.load("server_stop_midrun").runs:
        story, _ = await play(tmp_path / str(run.index), "server_stop_midrun", run=run.index)
        if run.entry is None and run.end is None:
            assert story.error.code == "backend_lost"
        else:
            assert story.last.status is JobStatus.SUCCEEDED


async def test_the_server_is_restarted_mid_run(tmp_path: Path) -> None:
    """A server that is there again without the job has lost it."""
    async with Replay("txt2img", Hold("progress"), speed=50) as replay:
        patient = Timeouts(connect=2, answer=5, silence=0.4, poll=0.1, lost=5, away=5)
        async with connected(replay.url, patient) as backend:

            async def restart(event: Event, execution: Execution) -> None:
                del execution
                if isinstance(event, StatusChanged) and event.status is JobStatus.RUNNING:
                    await replay.kill()
                    await replay.restart()

            story = await tell(backend, tmp_path, recorded_graph("txt2img"), watch=restart)

    assert story.error.code == "backend_lost"
    assert "restarted" in story.error.message


async def test_nobody_is_there(tmp_path: Path) -> None:
    """An address where nobody listens is an error before anything else happens."""
    async with Replay("txt2img") as replay:
        url = replay.url
    async with connected(url) as backend:
        with pytest.raises(BackendUnreachable, match="refused"):
            await tell(backend, tmp_path, recorded_graph("txt2img"))


async def test_the_answer_of_the_post_is_lost(tmp_path: Path) -> None:
    """When the server took the job but its answer never came, the job is followed."""
    quick = Timeouts(connect=2, answer=0.5, silence=0.4, poll=0.1, lost=0.4, away=5)
    async with (
        Replay("txt2img", HoldAnswer(10_000)) as replay,
        connected(replay.url, quick) as backend,
    ):
        story = await tell(backend, tmp_path, recorded_graph("txt2img"))

    assert story.last.status is JobStatus.SUCCEEDED


async def test_a_server_that_answers_with_text(tmp_path: Path) -> None:
    """A 500 with text is an error that quotes the text."""
    with pytest.raises(BackendAnswerInvalid, match="Server got itself in trouble"):
        await play(
            tmp_path,
            "txt2img",
            Answer("/prompt", 500, "500: Server got itself in trouble", method="POST"),
        )


async def test_a_server_that_answers_no_json(tmp_path: Path) -> None:
    """An answer that is not JSON is an error that quotes it."""
    with pytest.raises(BackendAnswerInvalid, match="hello"):
        await play(tmp_path, "txt2img", Answer("/prompt", 200, "<p>hello</p>", method="POST"))


@pytest.mark.parametrize(
    "fault",
    [
        Answer("/history/*", 500, "boom", times=2),
        Answer("/history/*", 200, "<html>", times=2),
        Answer("/history/*", 200, [1], times=1),
        Answer("/queue", 502, "bad gateway", times=2),
        Hang("/history/*", times=1),
    ],
)
async def test_a_server_that_stumbles(tmp_path: Path, fault: Fault) -> None:
    """Wrong answers in between are asked again and change nothing."""
    quick = Timeouts(connect=2, answer=0.5, silence=0.3, poll=0.1, lost=2, away=5)
    story, _ = await play(tmp_path, "txt2img", fault, GoSilent("executing"), timeouts=quick)

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_a_server_that_never_recovers(tmp_path: Path) -> None:
    """A server that only answers nonsense is given up on, with what it said."""
    story, _ = await play(
        tmp_path,
        "txt2img",
        Answer("/history/*", 500, "boom"),
        Answer("/queue", 500, "boom"),
        GoSilent("executing"),
    )

    assert story.error.code == "backend_lost"
    assert "boom" in story.error.message


async def test_a_server_that_chokes(tmp_path: Path) -> None:
    """A server that a poisonous body broke answers errors, never a hang of ours."""
    recording = Recording.load("poison_prompts")
    for run in recording.runs:
        graph = run.body.get("prompt")
        if run.answer is None or not isinstance(graph, dict) or not graph:
            continue
        async with (
            Replay("poison_prompts", run=run.index) as replay,
            connected(replay.url) as backend,
        ):
            try:
                story = await asyncio.wait_for(tell(backend, tmp_path / str(run.index), graph), 10)
            except (BackendAnswerInvalid, GraphRejected, BackendUnreachable) as error:
                assert str(error)
            else:
                assert story.last.status.is_terminal


async def test_a_stalled_server_is_waited_for(tmp_path: Path) -> None:
    """Messages held up by somebody else's slow socket delay the news, not the truth."""
    for run in range(len(Recording.load("slow_reader").runs)):
        story, _ = await play(tmp_path / str(run), "slow_reader", GoSilent("executing"), run=run)
        assert story.last.status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("name", ["misc_endpoints", "upload_variants", "view_endpoint"])
async def test_an_odd_neighbourhood(tmp_path: Path, name: str) -> None:
    """Runs among all sorts of other requests end well."""
    for run in Recording.load(name).runs:
        if run.accepted:
            story, _ = await play(tmp_path / str(run.index), name, run=run.index)
            assert story.last.status is JobStatus.SUCCEEDED


# Several troubles at once


ALL_BUT_THE_START = (
    "executing",
    "progress",
    "progress_state",
    "binary",
    "executed",
    "execution_success",
    "end",
)


async def test_busy_neighbours_do_not_hide_the_end(tmp_path: Path) -> None:
    """News of other people's jobs is no news of ours: a deaf socket is found out all the same."""
    async with (
        Replay("txt2img", *(Withhold(kind) for kind in ALL_BUT_THE_START)) as replay,
        connected(replay.url) as backend,
        asyncio.timeout(10),
        asyncio.TaskGroup() as tasks,
    ):
        noise = tasks.create_task(_chatter(replay))
        story = await tell(backend, tmp_path, recorded_graph("txt2img"))
        noise.cancel()

    assert story.last.status is JobStatus.SUCCEEDED


async def _chatter(replay: Replay) -> None:
    """What a busy server tells everybody, ten times in each of our silences."""
    while True:
        await asyncio.sleep(HASTY.silence / 10)
        await replay.send(_message("status", status={"exec_info": {"queue_remaining": 3}}))
        await replay.send(b"\x00\x00\x00\x03\x00\x00\x00\x013busy")


async def test_cancel_while_the_post_is_unanswered(tmp_path: Path) -> None:
    """A cancel that comes while the graph is on its way takes hold once it has arrived."""
    async with (
        Replay("interrupt_prompt_id", HoldAnswer(3), Hold("progress")) as replay,
        connected(replay.url) as backend,
    ):
        job = Job(str(uuid.uuid4()), recorded_graph("interrupt_prompt_id"))
        execution = Execution(backend, job, OutputFolder(tmp_path))
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            told = tasks.create_task(_all_of(execution))
            while not replay.calls("POST", "/prompt"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await execution.cancel()

    assert told.result()[-1].status is JobStatus.CANCELED
    assert [call.json for call in replay.calls("POST", "/interrupt")] == [{"prompt_id": job.id}]


async def _all_of(execution: Execution) -> list[Any]:
    return [event async for event in execution]


async def test_cancel_while_an_output_does_not_come(tmp_path: Path) -> None:
    """A download that hangs cannot keep a canceled job from ending."""
    async with (
        Replay("txt2img", Hang("/view")) as replay,
        connected(replay.url) as backend,
    ):
        job = Job(str(uuid.uuid4()), recorded_graph("txt2img"))
        execution = Execution(backend, job, OutputFolder(tmp_path))
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            told = tasks.create_task(_all_of(execution))
            while not replay.calls("GET", "/history/*"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await execution.cancel()

    assert told.result()[-1].status is JobStatus.CANCELED


async def test_some_live_pictures_lost_with_the_socket_fail_the_job(tmp_path: Path) -> None:
    """One of two pictures that only the socket carries is not a success."""
    seen = 0

    def is_second_picture(message: Sent) -> bool:
        nonlocal seen
        seen += message.type == "binary"
        return seen == 2

    story, _ = await play(tmp_path, "save_image_websocket", DropSocket(is_second_picture))

    assert len(story.outputs) == 1
    assert story.error.code == "output_unavailable"


async def test_a_history_that_hangs_hides_nothing_for_long(tmp_path: Path) -> None:
    """What was heard must do when the history does not answer, and outputs do not wait for it."""
    async with asyncio.timeout(5 + 1):
        story, _ = await play(tmp_path, "txt2img", Hang("/history/*"), timeouts=Timeouts())

    assert story.last.status is JobStatus.SUCCEEDED
    assert len(story.outputs) == 1


async def test_a_frozen_server_is_told_and_given_up(tmp_path: Path) -> None:
    """A server that takes questions and answers none is told at once, and lost in the end."""
    hasty = Timeouts(answer=1, truth=0.2, silence=0.3, poll=0.1, lost=0.4, away=1.5)
    async with asyncio.timeout(6):
        story, _ = await play(
            tmp_path,
            "txt2img",
            GoSilent("executing"),
            Hang("/history/*"),
            Hang("/queue"),
            timeouts=hasty,
        )

    assert story.error.code == "backend_lost"
    assert [note for note in story.notes if "does not answer" in note]


async def test_an_output_that_cannot_be_written_ends_the_job_at_once(tmp_path: Path) -> None:
    """A disk that takes no output is told while the job runs, and the job is canceled."""
    blocked = tmp_path / "taken"
    blocked.write_text("a file, not a folder", encoding="utf-8")
    async with (
        Replay(
            "interrupt_prompt_id",
            Inject("progress", (_executed(),)),
            Hold("progress"),
            Answer("/view", 200, b"?"),
        ) as replay,
        connected(replay.url) as backend,
    ):
        async with asyncio.timeout(10):
            with pytest.raises(OutputUnwritable):
                await tell(backend, blocked, recorded_graph("interrupt_prompt_id"))

    assert replay.calls("POST", "/interrupt")


def _executed() -> str:
    # A file has to be fetched, so the disk refuses it only after the announcement was taken.
    ui = {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}
    return _message("executed", node="9", output=ui, prompt_id="$PROMPT_ID")


async def test_a_stranger_that_answers_everything_is_no_comfyui(tmp_path: Path) -> None:
    """A server that says `{}` to everything is told apart before anything is queued."""
    async with (
        Replay("txt2img", Answer("/*", 200, {})) as replay,
        connected(replay.url) as backend,
    ):
        with pytest.raises(BackendAnswerInvalid, match="names no node"):
            await backend.node_catalog()
        with pytest.raises(BackendAnswerInvalid, match="POST /prompt"):
            await tell(backend, tmp_path, recorded_graph("txt2img"))


# The promise itself


async def test_a_lost_server_is_told_within_five_seconds(tmp_path: Path) -> None:
    """With the product's own timeouts, a dead server is known as such within 5 s."""
    async with asyncio.timeout(5 + 1):
        story, _ = await play(tmp_path, "txt2img", Kill("progress"), timeouts=Timeouts())

    assert story.error.code == "backend_lost"


async def test_a_lost_socket_hides_the_end_for_at_most_five_seconds(tmp_path: Path) -> None:
    """With the product's own timeouts, an end that no socket told is known within 5 s."""
    async with asyncio.timeout(5 + 1):
        story, _ = await play(
            tmp_path, "txt2img", DropSocket("progress", refuse=1000), timeouts=Timeouts()
        )

    assert story.last.status is JobStatus.SUCCEEDED


async def test_silence_hides_the_end_for_at_most_fifteen_seconds(tmp_path: Path) -> None:
    """With the product's own timeouts, an end that a silent socket hid is known within 15 s."""
    async with asyncio.timeout(15 + 1):
        story, _ = await play(tmp_path, "txt2img", GoSilent("progress"), timeouts=Timeouts())

    assert story.last.status is JobStatus.SUCCEEDED


def test_every_recording_is_used() -> None:
    """The table at the top of this file names every recording there is."""
    assert __doc__ is not None
    rows = [row for row in __doc__.splitlines() if row.startswith("| ")]
    named = {name.strip() for row in rows for name in row.split("|")[1].split(",")}
    assert set(Recording.names()) <= named
