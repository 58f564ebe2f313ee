"""Bundles from public parts of Stable Diffusion 1.x, and back into parts."""
