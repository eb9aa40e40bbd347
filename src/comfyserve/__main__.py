"""`python -m comfyserve`, the same as the command `comfyserve`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from comfyserve.cli.app import app
    from comfyserve.cli.streams import prepare_streams

    prepare_streams()
    app(prog_name="comfyserve")


if __name__ == "__main__":
    main()
