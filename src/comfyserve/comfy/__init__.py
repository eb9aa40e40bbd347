"""The door to ComfyUI: its wire words, and one server of it."""
