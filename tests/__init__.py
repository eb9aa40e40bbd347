"""The tests of comfyserve."""
