"""A stand-in for ComfyUI's `comfy_api`: the names the nodes import, with the same signatures."""
