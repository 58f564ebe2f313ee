"""A fake of ComfyUI's command-line arguments."""

from types import SimpleNamespace

args = SimpleNamespace(disable_metadata=False)
