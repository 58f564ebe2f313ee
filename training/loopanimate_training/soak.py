"""Does a run survive? `python -m loopanimate_training.soak --minutes 10` trains a toy while things go wrong.

Kills at random moments, signals, requests to quit, damaged checkpoints and truncated cache files. In the end
the run must be bit for bit equal to one that nothing happened to.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.exit_codes import ExitCode

from .config import RunConfig
from .signals import QUIT_FILE
from .storage.checkpoint import OPTIMIZER, WEIGHTS, checkpoints, load_latest
from .testing import (
    ENDLESS,
    RunProcess,
    difference,
    log_difference,
    newest_step,
    toy_run,
    with_settings,
)

FAULTS = {
    "kill": 6,
    "SIGTERM": 1,
    "quit": 1,
    "damage": 2,
    "cut cache": 1,
}  # and how often each happens


def kill_at_random(config: RunConfig, rng: random.Random) -> int:
    """Start the endless run and kill it (SIGKILL) at a random moment; returns the exit code."""
    process = RunProcess(config)
    if rng.random() < 0.8:  # otherwise it is killed while it starts
        process.wait_for_steps(
            rng.randrange(1, 4)
        )  # so that the run gets on, on a slow machine too
    time.sleep(rng.uniform(0.0, 0.3))
    process.send(signal.SIGKILL)
    return process.end()


def damage_newest(run: Path, rng: random.Random) -> str:
    """Truncate a file of the newest checkpoint, or flip a bit in it; returns what was done."""
    file = checkpoints(run)[-1] / rng.choice((WEIGHTS, OPTIMIZER))
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        content = content[:place]
    else:
        content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return f"damaged {file.parent.name}/{file.name} at byte {place}"


def truncate_cache_file(cache: Path, rng: random.Random) -> str:
    """Truncate a file of the cache, as a machine that loses power may; returns what was done."""
    file = rng.choice(sorted(cache.rglob("*.safetensors")))
    place = rng.randrange(file.stat().st_size)
    os.truncate(file, place)
    return f"truncated {file.name[:8]}… of the cache at byte {place}"


def finish_and_compare(config: RunConfig) -> str | None:
    """Let the run take three more steps, train another one without faults, and return the first difference."""
    steps = newest_step(config.out) + 3
    undisturbed = config.out.with_name("undisturbed")
    ends = (
        with_settings(config, steps=steps),
        with_settings(config, steps=steps, out=str(undisturbed), save={"every_steps": ENDLESS}),
    )
    for end in ends:
        if (code := RunProcess(end).end()) != 0:
            return f"{end.out} ended with {code}"
    a, b = load_latest(config.out), load_latest(undisturbed)
    assert a is not None and b is not None
    return difference(a, b) or log_difference(config.out, undisturbed)


@dataclass
class Soak:
    """A run that suffers one fault after another; `counts` has the number of each kind."""

    config: RunConfig
    rng: random.Random
    counts: dict[str, int] = field(default_factory=dict)

    def random_fault(self) -> str:
        """One fault of a random kind; returns what was done.

        Raises:
            LoopAnimateError: the run did not react as it should.
        """
        kind = self.rng.choices(tuple(FAULTS), tuple(FAULTS.values()))[0]
        if kind == "damage" and len(checkpoints(self.config.out)) < 2:
            kind = "kill"  # the run needs another checkpoint to resume from
        if kind == "cut cache" and newest_step(self.config.out) == 0:
            kind = "kill"  # the cache does not exist yet
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.fault(kind)

    def fault(self, kind: str) -> str:
        """One fault, named as in `FAULTS`; returns and raises as `random_fault`."""
        if kind == "damage":
            return damage_newest(self.config.out, self.rng)
        if kind == "cut cache":
            assert self.config.data.cache is not None
            return truncate_cache_file(self.config.data.cache, self.rng)
        if kind == "kill":
            code = _expect(kill_at_random(self.config, self.rng), -signal.SIGKILL)
            return f"kill, exit code {code}"
        process = RunProcess(self.config)
        process.wait_for_steps(self.rng.randrange(3))
        if kind == "quit":
            (self.config.out / QUIT_FILE).touch()
            expected = ExitCode.ASKED_TO_QUIT
        else:
            process.send(signal.SIGTERM)
            expected = ExitCode.TERMINATED
        return f"{kind}, exit code {_expect(process.end(), expected)}"


def _expect(code: int, expected: int) -> int:
    if code != expected:
        raise LoopAnimateError(f"a process ended with exit code {code} instead of {expected:d}")
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 when the run with faults equals the one without."""
    parser = argparse.ArgumentParser(prog="loopanimate_training.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(toy_run(Path(folder), steps=ENDLESS), random.Random(options.seed))
        until = time.monotonic() + 60 * options.minutes
        try:
            while time.monotonic() < until:
                what = soak.random_fault()
                print(f"step {newest_step(soak.config.out):6}  {what}", flush=True)
            found = finish_and_compare(soak.config)
        except LoopAnimateError as error:
            found = str(error)
    counts = ", ".join(f"{count} × {kind}" for kind, count in sorted(soak.counts.items()))
    print(f"{counts}: {found or 'equal to a run without faults, bit for bit'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
