"""The command line ComfyUI was started with."""

from types import SimpleNamespace

args = SimpleNamespace(disable_metadata=False)
