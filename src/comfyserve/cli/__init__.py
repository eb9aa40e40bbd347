"""The command line: run a workflow, try the built-in engine."""
