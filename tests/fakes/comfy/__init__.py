"""A stand-in for ComfyUI's own package `comfy`."""
