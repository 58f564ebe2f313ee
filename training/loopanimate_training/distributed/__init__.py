"""One run on several processes: accelerate, FSDP2, Ray."""
