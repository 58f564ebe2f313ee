"""Procedural clips: packaged animated stickers, moved as a prompt says."""
