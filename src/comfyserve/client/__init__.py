"""The library: a workflow file in, its outputs out, from sync or async code."""
