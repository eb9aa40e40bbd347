"""What people have made in ComfyUI, read into typed inputs; pure, it never touches a server."""
