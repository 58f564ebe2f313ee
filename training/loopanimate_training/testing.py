"""Toy runs for tests and `soak`: a few milliseconds a step, in this process or in others, and their comparison."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from loopanimate_core.bundle import bundle_info, mini_bundle_path
from loopanimate_core.errors import LoopAnimateError

from .config import RunConfig, merge, parse, resolve
from .loop import train
from .run.heartbeat import STARTING, read_heartbeat
from .run.log import FILE as LOG_FILE
from .run.log import read_log
from .storage.checkpoint import Checkpoint, load_latest

ENDLESS = 1_000_000  # steps
POLL_S = 0.02
WAIT_S = 600.0  # for anything; a busy machine is slow
SMALL_UNET = {
    "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "norm_num_groups": 4,
}
TOY_SETTINGS: dict[str, Any] = {
    "steps": 6,
    "log_every_steps": 1,
    "device": "cpu",
    "save.every_steps": 1,
    "save.keep": 3,
    "save.retry_s": 0.2,
    "clip.f": 2,
    "clip.stride": 2,
    "clip.reverse_steps": "[2]",
    "clip.height_px": 32,
    "clip.width_px": 32,
    "clip.starts_per_clip": 2,
    "clip.mask": "ones",
    "data.source": "frames",
    "batch.size": 2,
}
# Processes are forked from one that has imported these, so that each starts in a second.
PRELOADED = [
    "loopanimate_training.loop",
    "loopanimate_training.data.index.build",
    "transformers.models.clip.modeling_clip",
    "diffusers.models.autoencoders.autoencoder_tiny",
]
_fork = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
_fork.set_forkserver_preload(PRELOADED)  # type: ignore[attr-defined]


def toy_run(
    folder: Path, start: Path | None = None, stage: int | str = 1, **settings: Any
) -> RunConfig:
    """A tiny run over drawn pictures; `section.name` in `settings` replaces a setting.

    Args:
        start: a small bundle; None for the bundled model with a smaller UNet.
    """
    draw_clips(folder / "frames")
    values: dict[str, Any] = {
        **TOY_SETTINGS,
        "out": folder / "run",
        "model.start": start or mini_bundle_path(),
        "data.path": folder / "frames",
        "data.cache": folder / "cache",
    }
    if stage == 1:
        values["model.train"] = "[conv_in, temm.q]"  # less than the whole UNet
    if start is None:
        width = bundle_info(mini_bundle_path()).config.unet.cross_attention_dim
        values["model.unet"] = json.dumps({**SMALL_UNET, "cross_attention_dim": width})
    return resolve(
        stage, None, [f"{name}={value}" for name, value in {**values, **settings}.items()]
    )


def draw_clips(folder: Path) -> None:
    """Three clips of six pictures, in which a square moves to the right; nothing if the folder exists."""
    for clip in range(3) if not folder.exists() else ():
        (folder / f"clip{clip}").mkdir(parents=True)
        (folder / f"clip{clip}.txt").write_text(f"a square of kind {clip}")
        for i in range(6):
            picture = np.full((32, 32, 3), 30 * clip, np.uint8)
            picture[8:16, 4 * i : 4 * i + 8] = 250
            Image.fromarray(picture).save(folder / f"clip{clip}" / f"{i}.png")


def with_settings(config: RunConfig, **settings: Any) -> RunConfig:
    """The run with some top-level settings replaced; sections are merged."""
    return parse(merge(config.model_dump(mode="json"), settings))


class RunProcess:
    """A process that trains a run.

    Args:
        environment: variables to set in the process, as a launcher does.
    """

    def __init__(self, config: RunConfig, environment: Mapping[str, str] | None = None) -> None:
        self.run = config.out
        self.output = config.out.with_suffix(".txt")  # what the process prints
        values, variables = config.model_dump(mode="json"), dict(environment or {})
        self.process = _fork.Process(target=_train, args=(values, str(self.output), variables))
        self.process.start()

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until `holds()` is true while the process lives.

        Raises:
            LoopAnimateError: the process ended before, or `WAIT_S` seconds have passed.
        """
        until = time.monotonic() + WAIT_S
        while not holds():
            if not self.process.is_alive():
                if holds():  # the last thing it did
                    return
                raise LoopAnimateError(
                    f"a process of {self.run} ended with exit code {self.process.exitcode} before {what}:"
                    f"\n{self.printed()}"
                )
            if time.monotonic() > until:
                raise LoopAnimateError(f"{what}: not within {WAIT_S:.0f} s, in {self.run}")
            time.sleep(POLL_S)

    def wait_for_steps(self, count: int = 0) -> None:
        """Wait until it trains and has logged `count` more steps; raises as `wait_until`."""
        first = -1

        def taken() -> bool:
            nonlocal first
            beat = read_heartbeat(self.run) or {}
            if beat.get("pid") != self.process.pid or beat["state"] == STARTING:
                return False
            last = max((row["step"] for row in read_log(self.run / LOG_FILE)), default=0)
            first = last if first < 0 else first
            return last - first >= count

        self.wait_until(f"{count} steps", taken)

    def wait_for_state(self, state: str) -> None:
        """Wait until its heartbeat shows a state; raises as `wait_until`."""
        mine = (self.process.pid, state)

        def shown() -> bool:
            beat = read_heartbeat(self.run) or {}
            return (beat.get("pid"), beat.get("state")) == mine

        self.wait_until(f"the state {state!r}", shown)

    def printed(self) -> str:
        """The end of what it, and earlier processes of its run, have printed."""
        return (
            self.output.read_text(encoding="utf-8")[-2000:].strip() if self.output.exists() else ""
        )

    def send(self, number: int) -> None:
        """Send a signal."""
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)

    def end(self) -> int:
        """Wait for its end; returns the exit code, negative after a signal that it did not catch.

        Raises:
            LoopAnimateError: the process did not end, or ended with exit code 1; the message is what it printed.
        """
        self.process.join(WAIT_S)
        if self.process.exitcode is None:
            self.process.kill()
            raise LoopAnimateError(f"a process of {self.run} did not end within {WAIT_S:.0f} s")
        if self.process.exitcode == 1:
            raise LoopAnimateError(self.printed())
        return self.process.exitcode


def two_processes(config: RunConfig, port: int, **variables: str) -> list[RunProcess]:
    """The run in two processes connected by gloo, as a launcher starts them."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **variables}
    return [
        RunProcess(config, {"RANK": str(rank), "LOCAL_RANK": str(rank), **common})
        for rank in range(2)
    ]


def _train(values: dict[str, Any], output: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    # tqdm's own lock is shared by processes, and stays locked when one of them is killed.
    tqdm.set_lock(threading.RLock())
    with open(output, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        sys.exit(train(parse(values)).exit_code)
    except LoopAnimateError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)


def newest_step(run: Path) -> int:
    """Step of the newest complete checkpoint, 0 without one."""
    found = load_latest(run)
    return 0 if found is None else found.step


def difference(a: Checkpoint, b: Checkpoint) -> str | None:
    """Names the first thing in which two checkpoints are not bit for bit equal."""
    if (a.step, a.mean_loss) != (b.step, b.mean_loss):
        return f"step {a.step}, mean loss {a.mean_loss}; step {b.step}, mean loss {b.mean_loss}"
    for what in ("weights", "average", "optimizer"):
        ours, theirs = (dict(_leaves(getattr(c, what), what)) for c in (a, b))
        if ours.keys() != theirs.keys():
            return f"{what}: different names"
        for name, value in ours.items():
            other = theirs[name]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            if not same:
                return f"{name} differs"
    return None


def log_difference(a: Path, b: Path) -> str | None:
    """The first logged step whose numbers differ between two runs."""
    names = ("step", "loss", "mean_loss", "lr", "grad_norm")
    ours, theirs = (
        [[row[name] for name in names] for row in read_log(run / LOG_FILE) if "loss" in row]
        for run in (a, b)
    )
    for row, other in zip(ours, theirs, strict=False):
        if row != other:
            return f"the logs differ: {row}, {other}"
    return None if len(ours) == len(theirs) else f"the logs have {len(ours)} and {len(theirs)} rows"


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return [(name, value)]
    return [leaf for key, item in value.items() for leaf in _leaves(item, f"{name}.{key}")]
