"""How a database becomes what `tables` says, one step per file, forward only.

A step names itself (``revision``) and the one before it (``down_revision``), and never changes once
it was released: what comes later is a step of its own.
"""
