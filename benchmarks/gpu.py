"""Every measurement that needs a GPU, unattended, in at most ten minutes.

Nothing is downloaded: weights are random and of full size. Each job is a command with a limit of its own; one that
fails or runs out of time leaves its output, and the next one starts.

    python benchmarks/gpu.py --out results            # results/summary.json, and what each job printed
    python benchmarks/gpu.py --out results --small    # the same jobs at toy size on the CPU, to try them
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BENCHMARKS = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """A command with its limit; `needs_gpu` ones are left out with --small."""

    name: str
    command: list[str]
    limit_s: int
    needs_gpu: bool = False


def jobs(out: Path, small: bool) -> list[Job]:
    """In order of value: what comes late is what may be cut off."""
    device = ["--device", "cpu" if small else "cuda"]
    channels = ["32", "32", "64", "64"] if small else ["320", "640", "1280", "1280"]
    vae = ["32", "32", "32", "32"] if small else ["128", "256", "512", "512"]
    frames, size, latent, steps = ("4", "32", "8", "1") if small else ("35", "512", "64", "25")
    loop = ["--channels", *channels, "--vae", *vae, "--frames", frames, "--size", size]
    loop += ["--steps", steps, "--rounds", "1" if small else "2", "--out", str(out / "loop.json")]
    unet = ["--channels", *channels, "--frames", "4" if small else "16", "--size", latent]
    plan = [sys.executable, "-m", "loopanimate_training", "plan", "--stage", "3"]
    return [
        Job("loop", [sys.executable, str(BENCHMARKS / "loop_speed.py"), *device, *loop], 300),
        Job("plan", plan, 60),
        Job("training step", [*plan, "--measure"], 120, needs_gpu=True),
        Job(
            "network",
            [sys.executable, str(BENCHMARKS / "unet_speed.py"), *device, *unet, "--rounds", "2"],
            120,
        ),
    ]


def run(job: Job, out: Path) -> dict[str, object]:
    """The job's row of the summary; its output is in a file of its name."""
    started = time.monotonic()
    log = out / f"{job.name.replace(' ', '_')}.txt"
    with log.open("w") as file:
        try:
            code = subprocess.run(
                job.command, stdout=file, stderr=subprocess.STDOUT, timeout=job.limit_s, check=False
            ).returncode
            state = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            state = f"stopped after {job.limit_s} s"
    took_s = round(time.monotonic() - started, 1)
    return {"job": job.name, "state": state, "took_s": took_s, "output": log.name}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--small", action="store_true", help="toy size, on the CPU")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for job in jobs(options.out, options.small):
        if job.needs_gpu and options.small:
            continue
        rows.append(run(job, options.out))
        print("{job:15} {state}, {took_s} s".format(**rows[-1]), flush=True)
        (options.out / "summary.json").write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(row["state"] == "done" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
