"""What a person typed, as the inputs of one workflow."""

from __future__ import annotations

from pathlib import Path

from comfyserve.cli.assignments import Assignments, FromOption
from comfyserve.workflows.parameters import Media, Parameter, Written
from comfyserve.workflows.workflow import Workflow


def inputs_for(workflow: Workflow, assignments: Assignments) -> dict[str, object]:
    """The inputs that *assignments* mean for this workflow.

    ``@file`` stands for a file only where the workflow takes one; for a text it is text.
    """
    return {
        name: given.value if isinstance(given, FromOption) else _typed(workflow.find(name), given)
        for name, given in assignments.items()
    }


def _typed(parameter: Parameter | None, text: str) -> object:
    if not isinstance(parameter, Media):
        return Written(text)
    return Path(text[1:]) if text.startswith("@") else text
