"""What goes wrong, done to real processes: a server, a ComfyUI, a disk, a network."""
