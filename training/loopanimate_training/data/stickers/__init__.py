"""Drawn training clips: stickers and cut-outs that a renderer moves as a prompt says, and animated stickers."""
