"""The network in training: its start, which weights train, the loss, the optimiser, and memory."""
