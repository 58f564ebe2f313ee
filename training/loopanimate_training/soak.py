"""Does a run survive? `python -m loopanimate_training.soak --minutes 10` trains a toy while things go wrong.

Kills at random moments, signals, requests to quit, damaged checkpoints and cut-off cache files; at the end
the run must be equal, bit for bit, to one that was left alone. The processes are forked from a warm one, so
that a life takes a second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from loopanimate_core.bundle import bundle_info, mini_bundle_path
from loopanimate_core.errors import LoopAnimateError

from .config import RunConfig, merge, parse, resolve
from .loop import ASKED_TO_QUIT, train
from .run.heartbeat import STARTING, read_heartbeat
from .run.log import FILE as LOG_FILE
from .run.log import read_log
from .run.requests import QUIT_FILE
from .storage.checkpoint import OPTIMIZER, WEIGHTS, Checkpoint, checkpoints, load_latest

ENDLESS = 1_000_000  # steps
POLL_S = 0.02
WAIT_S = 600.0  # for anything; a loaded machine is slow
SMALL_UNET = {
    "block_out_channels": [8, 16, 16, 16], "layers_per_block": 1, "num_attention_heads": 2,
    "motion_num_attention_heads": 2, "norm_num_groups": 4,
}  # fmt: skip
TROUBLES = {"kill": 6, "SIGTERM": 1, "quit": 1, "damage": 2, "cut cache": 1}  # and their weights
_fork = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
WARM = (
    "loopanimate_training.loop", "loopanimate_training.data.index.build", "transformers.models.clip.modeling_clip",
    "diffusers.models.autoencoders.autoencoder_tiny",
)  # fmt: skip
_fork.set_forkserver_preload(list(WARM))  # type: ignore[attr-defined]


def toy_run(folder: Path, start: Path | None = None, **settings: Any) -> RunConfig:
    """A run of a few milliseconds a step over drawn pictures; `section.name` in `settings` overrides.

    `start` is a small bundle, None the bundled model with a smaller UNet.
    """
    frames = folder / "frames"
    for clip in range(3) if not frames.exists() else ():
        (frames / f"clip{clip}").mkdir(parents=True)
        (frames / f"clip{clip}.txt").write_text(f"a square of kind {clip}")
        for i in range(6):
            picture = np.full((32, 32, 3), 30 * clip, np.uint8)
            picture[8:16, 4 * i : 4 * i + 8] = 250
            Image.fromarray(picture).save(frames / f"clip{clip}" / f"{i}.png")
    values: dict[str, Any] = {
        "out": folder / "run", "steps": 6, "log_every_steps": 1, "device": "cpu", "save.every_steps": 1,
        "save.keep": 3, "save.retry_s": 0.2, "model.start": start or mini_bundle_path(), "model.train": "[conv_in, temm.q]",
        "clip.f": 2, "clip.stride": 2, "clip.reverse_steps": "[2]", "clip.height_px": 32, "clip.width_px": 32,
        "clip.starts_per_clip": 2, "clip.mask": "ones", "data.source": "frames", "data.path": frames,
        "data.cache": folder / "cache", "batch.size": 2,
    }  # fmt: skip
    if start is None:
        width = bundle_info(mini_bundle_path()).config.unet.cross_attention_dim
        values["model.unet"] = json.dumps({**SMALL_UNET, "cross_attention_dim": width})
    return resolve(1, None, [f"{name}={value}" for name, value in {**values, **settings}.items()])


class Life:
    """One process of a run.

    Args:
        environment: variables of a launcher, set in the process.
    """

    def __init__(self, config: RunConfig, environment: Mapping[str, str] | None = None) -> None:
        self.run = config.out
        self.report = config.out.with_suffix(".txt")  # what the process prints
        values, variables = config.model_dump(mode="json"), dict(environment or {})
        self.process = _fork.Process(target=_live, args=(values, str(self.report), variables))
        self.process.start()

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Until `holds()` is true of the living process.

        Raises:
            LoopAnimateError: it ended before, or nothing came of it in `WAIT_S`.
        """
        until = time.monotonic() + WAIT_S
        while not holds():
            if not self.process.is_alive():
                if holds():  # its last act
                    return
                raise LoopAnimateError(
                    f"a process of {self.run} ended with exit code {self.process.exitcode} before {what}:\n{self.said()}"
                )
            if time.monotonic() > until:
                raise LoopAnimateError(f"{what}: not in {WAIT_S:.0f} s, in {self.run}")
            time.sleep(POLL_S)

    def wait_for_steps(self, count: int = 0) -> None:
        """Until it trains and has logged `count` steps since that was first seen; raises as `wait_until`."""
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
        """Until its heartbeat shows a state; raises as `wait_until`."""
        mine = (self.process.pid, state)

        def shown() -> bool:
            beat = read_heartbeat(self.run) or {}
            return (beat.get("pid"), beat.get("state")) == mine

        self.wait_until(f"the state {state!r}", shown)

    def said(self) -> str:
        """The end of what it, and earlier processes of its run, have printed."""
        return (
            self.report.read_text(encoding="utf-8")[-2000:].strip() if self.report.exists() else ""
        )

    def send(self, number: int) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)

    def end(self) -> int:
        """Wait for its end; its exit code, negative after a signal that it did not catch."""
        self.process.join(WAIT_S)
        if self.process.exitcode is None:
            self.process.kill()
            raise LoopAnimateError(f"a process of {self.run} did not end in {WAIT_S:.0f} s")
        if self.process.exitcode == 1:
            raise LoopAnimateError(self.said())
        return self.process.exitcode


def two_processes(config: RunConfig, port: int, **variables: str) -> list[Life]:
    """The run on two processes that talk over gloo, as a launcher starts them."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **variables}
    return [
        Life(config, {"RANK": str(rank), "LOCAL_RANK": str(rank), **common}) for rank in range(2)
    ]


def _live(values: dict[str, Any], report: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    tqdm.set_lock(
        threading.RLock()
    )  # its own is shared by processes, and outlives one that is killed
    with open(report, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        sys.exit(train(parse(values)).exit_code)
    except LoopAnimateError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)


def with_settings(config: RunConfig, **settings: Any) -> RunConfig:
    """The run with some top-level settings replaced; sections are merged."""
    return parse(merge(config.model_dump(mode="json"), settings))


def kill_at_random(config: RunConfig, rng: random.Random) -> int:
    """Start the endless run and kill it (SIGKILL) at a random moment; returns the exit code."""
    life = Life(config)
    if rng.random() < 0.8:  # else while it starts
        life.wait_for_steps(rng.randrange(1, 4))  # so that the run gets on, on a slow machine too
    time.sleep(rng.uniform(0.0, 0.3))
    life.send(signal.SIGKILL)
    return life.end()


def damage_newest(run: Path, rng: random.Random) -> str:
    """Cut off or flip a bit of a file of the newest checkpoint; says what was done."""
    file = checkpoints(run)[-1] / rng.choice((WEIGHTS, OPTIMIZER))
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        content = content[:place]
    else:
        content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"damaged {file.parent.name}/{file.name} at byte {place}"


def cut_cache(cache: Path, rng: random.Random) -> str:
    """Cut off a file of the cache, as a machine that goes down may leave it; says what was done."""
    file = rng.choice(sorted(cache.rglob("*.safetensors")))
    place = rng.randrange(file.stat().st_size)
    os.truncate(file, place)
    return f"cut off {file.name[:8]}… of the cache at byte {place}"


def newest_step(run: Path) -> int:
    """Step of the newest whole checkpoint, 0 without one."""
    found = load_latest(run)
    return 0 if found is None else found.step


def finish_and_compare(config: RunConfig) -> str | None:
    """Let the run take three more steps, do the same without any trouble, and name the first difference."""
    steps = newest_step(config.out) + 3
    calm = config.out.with_name("calm")
    ends = (
        with_settings(config, steps=steps),
        with_settings(config, steps=steps, out=str(calm), save={"every_steps": ENDLESS}),
    )
    for end in ends:
        if (code := Life(end).end()) != 0:
            return f"{end.out} ended with {code}"
    a, b = load_latest(config.out), load_latest(calm)
    assert a is not None and b is not None
    return difference(a, b) or log_difference(config.out, calm)


def difference(a: Checkpoint, b: Checkpoint) -> str | None:
    """The first thing that two checkpoints do not have the same bit for bit."""
    if (a.step, a.mean_loss) != (b.step, b.mean_loss):
        return f"step {a.step}, mean loss {a.mean_loss}; step {b.step}, mean loss {b.mean_loss}"
    for what in ("weights", "average", "optimizer"):
        ours, theirs = (dict(_leaves(getattr(c, what), what)) for c in (a, b))
        if ours.keys() != theirs.keys():
            return f"{what}: other names"
        for name, value in ours.items():
            other = theirs[name]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            if not same:
                return f"{name} differs"
    return None


def log_difference(a: Path, b: Path) -> str | None:
    """The first logged step whose numbers differ."""
    names = ("step", "loss", "mean_loss", "lr", "grad_norm")
    ours, theirs = (
        [[row[name] for name in names] for row in read_log(run / LOG_FILE) if "loss" in row]
        for run in (a, b)
    )
    for row, other in zip(ours, theirs, strict=False):
        if row != other:
            return f"the logs differ: {row}, {other}"
    return None if len(ours) == len(theirs) else f"{len(ours)} and {len(theirs)} rows are logged"


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        return [(name, value)]
    return [leaf for key, item in items for leaf in _leaves(item, f"{name}.{key}")]


@dataclass
class Soak:
    """A run in trouble until the time is over; `counts` says what was done to it."""

    config: RunConfig
    rng: random.Random
    counts: dict[str, int] = field(default_factory=dict)

    def trouble(self) -> str:
        """One misfortune, drawn at random; says which.

        Raises:
            LoopAnimateError: the run did not take it as it should.
        """
        kind = self.rng.choices(tuple(TROUBLES), tuple(TROUBLES.values()))[0]
        if kind == "damage" and len(checkpoints(self.config.out)) < 2:
            kind = "kill"  # there must be one to go on from
        if kind == "cut cache" and newest_step(self.config.out) == 0:
            kind = "kill"  # there is no cache yet
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.suffer(kind)

    def suffer(self, kind: str) -> str:
        """The misfortune named so in `TROUBLES`; says and raises as `trouble`."""
        if kind == "damage":
            return damage_newest(self.config.out, self.rng)
        if kind == "cut cache":
            assert self.config.data.cache is not None
            return cut_cache(self.config.data.cache, self.rng)
        if kind == "kill":
            return (
                f"kill, exit code {_expect(kill_at_random(self.config, self.rng), -signal.SIGKILL)}"
            )
        life = Life(self.config)
        life.wait_for_steps(self.rng.randrange(3))
        if kind == "quit":
            (self.config.out / QUIT_FILE).touch()
            expected = ASKED_TO_QUIT
        else:
            life.send(signal.SIGTERM)
            expected = 128 + signal.SIGTERM
        return f"{kind}, exit code {_expect(life.end(), expected)}"


def _expect(code: int, expected: int) -> int:
    if code != expected:
        raise LoopAnimateError(f"a process ended with exit code {code} instead of {expected:d}")
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when the troubled run equals the calm one."""
    parser = argparse.ArgumentParser(prog="loopanimate_training.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(toy_run(Path(folder), steps=ENDLESS), random.Random(options.seed))
        until = time.monotonic() + 60 * options.minutes
        try:
            while time.monotonic() < until:
                what = soak.trouble()
                print(f"step {newest_step(soak.config.out):6}  {what}", flush=True)
            found = finish_and_compare(soak.config)
        except LoopAnimateError as error:
            found = str(error)
    counts = ", ".join(f"{count} × {kind}" for kind, count in sorted(soak.counts.items()))
    print(f"{counts}: {found or 'equal to a run without trouble, bit for bit'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
