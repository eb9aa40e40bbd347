"""Tests of the workflows on offer."""
