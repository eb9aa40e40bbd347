"""Turn a ComfyUI workflow file into a hosted API."""

__version__ = "0.1.0"
