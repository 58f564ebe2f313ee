"""A fake of ComfyUI's package `comfy`."""
