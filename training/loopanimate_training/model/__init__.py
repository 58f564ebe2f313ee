"""The network in training: where it starts, what of it trains, its loss, optimiser and memory."""
