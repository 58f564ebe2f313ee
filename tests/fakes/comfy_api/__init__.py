"""A fake of ComfyUI's `comfy_api`: the names that the nodes import, with the same signatures."""
