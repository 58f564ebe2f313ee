"""Drawn training clips: stickers that a renderer moves as a prompt says, and animated ones."""
