"""The example workflows that come with the package."""

from __future__ import annotations

from pathlib import Path

from comfyserve.errors import WorkflowUnreadable


def example(name: str) -> Path:
    """Where the example workflow *name* is: in the installed package, or in the repository."""
    package = Path(__file__).parents[1]
    places = [package / "examples" / name, package.parents[1] / "examples" / name]
    for place in places:
        if place.is_file():
            return place
    raise WorkflowUnreadable(str(places[0]), "is missing", "Install comfyserve again")
