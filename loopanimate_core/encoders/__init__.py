"""What turns prompts and pictures into what the network reads, and latents into pictures."""
