"""The door to ComfyUI, tested against recorded sessions and a small real server."""
