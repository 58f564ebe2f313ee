"""Photographs and photographic cut-outs from packages, for training; none of them is part of this repository."""
