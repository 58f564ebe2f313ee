"""Training data: where clips come from, which are usable, and how they reach the network."""
