"""Files that survive crashes: checkpoints, append-only logs, locks between processes."""
