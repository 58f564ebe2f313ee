"""How long a training run stands still while it saves: for the copy in the background, for all of it in the foreground.

    python benchmarks/save_stall.py --gigabytes 2 --folder work/save-stall

The state has weights, their average, and the optimiser's two moments. CPU seconds do not depend on what else runs.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from loopanimate_training.distributed.fsdp import full_tensors
from loopanimate_training.storage.checkpoint import Checkpoint, save_checkpoint

NUMBERS = 4_000_000  # of each tensor: 16 MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("work/save-stall"))
    options = parser.parse_args()
    count = max(1, round(options.gigabytes * 1e9 / (4 * NUMBERS * 4)))
    names = [f"unet.{number}" for number in range(count)]
    weights, average, first, second = ({n: torch.rand(NUMBERS) for n in names} for _ in range(4))
    moments = {n: {"exp_avg": first[n], "exp_avg_sq": second[n]} for n in names}
    copies: list[Checkpoint] = []

    def copy() -> None:
        parts = full_tensors([weights, average, {"state": moments}])
        copies.append(Checkpoint(1, {}, *parts))

    print(f"{count * 4 * NUMBERS * 4 / 1e9:.1f} GB")
    measure("the copy", copy)
    measure("finite check, writing, hashes", lambda: save_checkpoint(options.folder, copies[0], 1))
    shutil.rmtree(options.folder, ignore_errors=True)


def measure(what: str, action: Callable[[], object]) -> None:
    clock_s, cpu_s = time.perf_counter(), time.process_time()
    action()
    clock_s, cpu_s = time.perf_counter() - clock_s, time.process_time() - cpu_s
    print(f"{what:<32}{clock_s:8.2f} s {cpu_s:8.2f} CPU s")


if __name__ == "__main__":
    main()
