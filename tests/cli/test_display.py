"""What a person sees while a job runs."""

from __future__ import annotations

import io

from rich.console import Console

from comfyserve.cli.display import PlainLines, Silence, display
from comfyserve.cli.live_bar import live_bar
from comfyserve.events import Event, Noted, PreviewDrawn, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus, Preview, Progress

JOB = "0b2f5c1e-0000-4000-8000-000000000000"


def at(
    value: float,
    node: str | None = None,
    nodes: int = 4,
    step: int | None = None,
    steps: int | None = None,
) -> ProgressMade:
    return ProgressMade(
        JOB,
        Progress(
            value=value,
            nodes_total=nodes,
            current_node=node,
            current_node_class=node,
            elapsed=12,
            remaining=(20, 35),
            step=step,
            steps=steps,
        ),
    )


def plain(events: list[Event]) -> list[str]:
    stream = io.StringIO()
    lines = PlainLines(stream)
    for event in events:
        lines.show(event)
    return stream.getvalue().splitlines()


def test_a_plain_line_says_it_all() -> None:
    """A line holds the part done, the node, its step, and the times."""
    assert plain([at(0.456, "KSampler", step=3, steps=22)]) == [
        " 45 %  KSampler, step 3 of 22; 0:12, 0:20 to 0:35 left"
    ]


def test_a_plain_line_comes_for_every_node_and_every_tenth() -> None:
    """Another node or another tenth is news; a thousand steps between are not."""
    steps: list[Event] = [
        at(step / 1000, "KSampler", step=step, steps=1000) for step in range(1000)
    ]

    lines = plain([at(0, "Loader"), *steps, at(1.0)])

    assert len(lines) == 1 + 1 + 9 + 1
    assert lines[0].startswith("  0 %  Loader")
    assert lines[-1].startswith("100 %")


def test_a_node_that_ends_is_no_news() -> None:
    """Ten short nodes are ten lines and a last one, though each also ends another tenth."""
    told: list[Event] = []
    for number in range(10):
        told += [at(number / 10, f"n{number}", 10), at((number + 1) / 10, f"n{number}", 10)]

    lines = plain(told)

    assert [line[:10] for line in lines[:3]] == ["  0 %  n0;", " 10 %  n1;", " 20 %  n2;"]
    assert len(lines) == 11
    assert lines[-1].startswith("100 %")


def test_a_large_graph_is_no_flood() -> None:
    """With hundreds of nodes a line comes only every tenth."""
    lines = plain([at(number / 400, f"n{number}", nodes=400) for number in range(400)])

    assert len(lines) == 9


def test_plain_lines_tell_the_place_in_the_queue_once() -> None:
    """Waiting is said when the place changes; previews are not shown."""
    waiting: list[Event] = [
        StatusChanged(JOB, JobStatus.QUEUED),
        StatusChanged(JOB, JobStatus.QUEUED, queue_position=2),
        StatusChanged(JOB, JobStatus.QUEUED, queue_position=2),
        StatusChanged(JOB, JobStatus.QUEUED, queue_position=1),
        PreviewDrawn(JOB, Preview("3", "image/jpeg", b"x")),
        Noted(JOB, "warning", "the connection\x1b was lost"),
    ]

    assert plain(waiting) == [
        "waiting in the server's queue, place 2",
        "waiting in the server's queue, place 1",
        "the connection  was lost",
    ]


def screen(events: list[Event], width: int = 100) -> str:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, _environ={"TERM": "xterm"}
    )
    with live_bar(console) as bar:
        for event in events:
            bar.show(event)
        bar.drawing.refresh()
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


def test_the_bar_shows_how_far_it_is() -> None:
    """The bar names the part done, the node, its step and what remains."""
    drawn = screen([at(0.25, "KSampler", step=5, steps=20)])

    assert " 25 %" in drawn
    assert "KSampler, step 5 of 20" in drawn
    assert "0:20 to 0:35 left" in drawn


def test_titles_are_text_and_no_markup() -> None:
    """Brackets and control characters in a title are shown, not obeyed."""
    drawn = screen([at(0.5, "[red]Fox[/red]\x1b[2J"), Noted(JOB, "info", "[bold]x")])

    assert "[red]Fox[/red] [2J" in drawn
    assert "[bold]x" in drawn


def test_the_bar_tells_of_waiting_and_canceling() -> None:
    """While nothing runs, the bar says why."""
    assert "place 3" in screen([StatusChanged(JOB, JobStatus.QUEUED, queue_position=3)])
    assert "canceling" in screen([StatusChanged(JOB, JobStatus.CANCELING)])


def test_the_bar_fits_on_a_narrow_terminal() -> None:
    """On forty columns the bar stays on one line."""
    drawn = screen([at(0.5, "A node with a long name", step=1, steps=20)], width=40)

    assert " 50 %" in drawn
    assert "\n" not in drawn
    assert "━" not in drawn
    assert "0:00, 0:20 to 0:35 left" in drawn
    assert "A node" in drawn


def test_words_and_times_fit_where_the_bar_does_not() -> None:
    """On fifty-nine columns there is no bar, and everything else is there in full."""
    drawn = screen([at(0.25, "KSampler", step=5, steps=20)], width=59)

    assert "━" not in drawn
    assert "0:20 to 0:35 left" in drawn
    assert "KSampler, step 5 of 20" in drawn


def test_quiet_shows_nothing() -> None:
    """The quiet display takes events and says nothing."""
    with display(quiet=True) as shown:
        assert isinstance(shown, Silence)
        shown.show(at(0.5, "KSampler"))
