"""The files ComfyUI saves its results in, read only as far as the texts they carry.

Every reader is a function from an opened `Source` to pairs of a text's name and the text, in the
file's order. It reads what lies around the pictures and sounds, never these themselves.
"""
