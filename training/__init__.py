"""Trains the built-in engine's model; needs its own requirements and is no part of the wheel."""
