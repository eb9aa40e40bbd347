"""Recorded sessions of a real ComfyUI, and the server that plays them back."""
