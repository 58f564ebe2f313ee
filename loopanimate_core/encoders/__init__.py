"""Prompts and pictures to embeddings, and pictures to latents and back."""
