"""Stateless random numbers: every draw is a function of a key such as (seed, purpose, sample number).

So a run resumes without saving or replaying generator states, and the draws do not depend on the number of
processes, threads or micro-batches.
"""

from __future__ import annotations

import hashlib
import random

import torch


def key_hash(*key: int | str) -> int:
    """A 63-bit number, the same on every machine and in every version of Python."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def python_rng(*key: int | str) -> random.Random:
    return random.Random(key_hash(*key))


def torch_rng(*key: int | str) -> torch.Generator:
    """A generator on the CPU, so that draws are the same for every device."""
    return torch.Generator().manual_seed(key_hash(*key))
