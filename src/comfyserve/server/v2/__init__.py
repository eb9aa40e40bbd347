"""The Comfy API v2, to the letter of its public contract."""
