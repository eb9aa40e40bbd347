"""The built-in engine: a small ComfyUI-compatible server on CPU.

It knows nothing of the rest of the house, and the rest knows it only over HTTP and WebSocket.
"""
