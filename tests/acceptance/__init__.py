"""Tests of the real command against the real engine, each a process of its own."""
