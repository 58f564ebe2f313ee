"""The paper's ablations at the size of the mini: train every row with several seeds, evaluate, compare (docs/ablations.md)."""
