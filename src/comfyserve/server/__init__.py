"""The HTTP face: the Comfy API v2, and what comfyserve offers beside it."""
