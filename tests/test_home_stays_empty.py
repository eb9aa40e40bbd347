"""Whoever tries comfyserve finds nothing of it in their home, and nobody is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.engines import engine_environment


def test_the_model_leaves_nothing_in_home(tmp_path: Path) -> None:
    """Loading the engine's model writes no file into the home folder: onnxruntime would do so
    to report its use."""
    homes = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(tmp_path))
    load = "from comfyserve.engine.model import Model; Model.load()"

    subprocess.run(
        [sys.executable, "-c", load], env={**engine_environment(), **homes}, check=True, timeout=60
    )

    assert list(tmp_path.rglob("*")) == []
