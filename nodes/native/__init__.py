"""LoopAnimate as ComfyUI's own types: MODEL, CLIP, CLIP_VISION, VAE, and loops closed under every sampler."""
