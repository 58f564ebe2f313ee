"""Build a bundle from public Stable Diffusion 1.x parts, and take one apart again."""
