"""Stateless randomness: every draw is a pure function of a key such as (seed, purpose, sample number).

Nothing has to be saved or replayed to resume a run, and the draws do not depend on how many processes,
threads or micro-batches share the work.
"""

from __future__ import annotations

import hashlib
import random

import torch


def key_hash(*key: int | str) -> int:
    """A 63-bit number, the same on every machine and Python."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def python_rng(*key: int | str) -> random.Random:
    return random.Random(key_hash(*key))


def torch_rng(*key: int | str) -> torch.Generator:
    """A CPU generator, so that draws are the same on every device."""
    return torch.Generator().manual_seed(key_hash(*key))
