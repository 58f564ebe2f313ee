"""One run in several processes: accelerate, FSDP2, Ray."""
