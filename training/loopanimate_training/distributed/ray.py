"""A run on the workers of a Ray cluster, or of this machine.

How a run ended is passed on in a file in its folder: Ray itself passes a worker's report on only together
with a checkpoint of its own.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ..config import RunConfig, parse
from ..signals import QUIT_FILE, Outcome, Request, caught_signals
from .launch import TIMEOUT

FILE = "ray-outcome.json"
RESTARTS = 3
POLL_S = 0.5


class Train(Protocol):
    """The training loop, `loopanimate_training.loop.train`."""

    def __call__(self, config: RunConfig, *, allow_change: bool = False) -> Outcome: ...


def train_on_ray(
    train: Train, config: RunConfig, workers: int, *, allow_change: bool = False
) -> Outcome:
    """Start or resume a run on `workers` workers; all of them must see the run's folder.

    Workers that are lost are started again and resume from the newest checkpoint. A signal reaches the
    workers as the file `save_quit`.

    Raises:
        LoopAnimateError: Ray is not installed, the cluster has too few GPUs or CPUs, the run failed with a
            user error, or workers were lost too often.
    """
    ray, ray_train, ray_torch = map(_import, ("ray", "ray.train", "ray.train.torch"))
    config.out.mkdir(parents=True, exist_ok=True)
    if not ray.is_initialized():
        ray.init()
    gpus = require_processors(ray.cluster_resources(), workers, config.device)
    if not gpus:  # without this, accelerate thinks that a worker without a GPU is the only process
        config = config.model_copy(update={"device": "cpu"})
    launch = uuid.uuid4().hex
    trainer = ray_torch.TorchTrainer(
        partial(_worker, train),
        train_loop_config={
            "run": config.model_dump(mode="json"),
            "allow_change": allow_change,
            "launch": launch,
            "folder": os.getcwd(),
        },
        torch_config=ray_torch.TorchConfig(timeout_s=int(TIMEOUT.total_seconds())),
        scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=ray_train.RunConfig(
            name="ray",
            storage_path=str(config.out.resolve()),
            failure_config=ray_train.FailureConfig(max_failures=RESTARTS),
        ),
    )
    with caught_signals() as caught:
        failure = _wait(trainer.fit, config.out / QUIT_FILE, caught)
    if caught:  # the workers may have ended without reading it
        (config.out / QUIT_FILE).unlink(missing_ok=True)
    try:
        outcome = _read(config.out, launch)
    finally:
        (config.out / FILE).unlink(missing_ok=True)
    if isinstance(failure, getattr(ray_train, "TrainingFailedError", RuntimeError)):
        last = str(failure).strip().rpartition("\n")[2]
        raise LoopAnimateError(
            f"Ray's workers failed more than {RESTARTS} times; the last error: {last}"
        )
    if failure is not None:
        raise failure
    if outcome is None:
        raise LoopAnimateError(
            f"Ray's workers have ended, but {config.out / FILE} does not say how: is {config.out.resolve()} on a "
            "disk that all machines see?"
        )
    if caught and outcome.request.quit:  # this process made that file
        return dataclasses.replace(outcome, request=Request(signal_number=caught[0]))
    return outcome


def require_processors(resources: dict[str, float], workers: int, device: str) -> bool:
    """Whether each worker gets a GPU: when the cluster has any and the run may use them.

    Raises:
        LoopAnimateError: the cluster has fewer GPUs (or CPUs) than workers. Ray would wait for more for ever.
    """
    gpus = device != "cpu" and resources.get("GPU", 0) > 0
    kind = "GPU" if gpus else "CPU"
    available = int(resources.get(kind, 0))
    if available < workers:
        raise LoopAnimateError(
            f"--workers is {workers}, and the Ray cluster has {available} {kind}{'s' * (available != 1)}"
        )
    return gpus


def _wait(fit: Callable[[], object], quit_file: Path, caught: Sequence[int]) -> Exception | None:
    """Run `fit` to its end; returns the exception that ended it.

    It runs in a thread: in the main thread, Ray would end the workers on Ctrl-C before they save.
    """
    failures: list[Exception] = []

    def run() -> None:
        try:
            fit()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="ray", daemon=True)
    thread.start()
    asked = False
    while thread.is_alive():
        thread.join(POLL_S)
        if caught and not asked:
            quit_file.touch()
            asked = True
    return failures[0] if failures else None


def _worker(train: Train, settings: dict[str, Any]) -> None:
    """One process's share.

    A user error is written to the file and then fails the worker, since others may be waiting for it. Ray
    starts all workers again, and they find it in the file.
    """
    os.chdir(settings["folder"])  # Ray changes the folder, and paths may be relative
    config, launch = parse(settings["run"]), settings["launch"]
    try:
        if _read(config.out, launch) is not None:
            return
    except LoopAnimateError:
        return
    try:
        outcome = train(config, allow_change=settings["allow_change"])
    except LoopAnimateError as error:
        _write(config.out, {"launch": launch, "error": str(error)})
        raise
    if _import("ray.train").get_context().get_world_rank() == 0:
        _write(config.out, {"launch": launch, "outcome": dataclasses.asdict(outcome)})


def _write(run: Path, content: dict[str, Any]) -> None:
    with atomic_write(run / FILE) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _read(run: Path, launch: str) -> Outcome | None:
    """How this launch ended; None when it has not, or no worker could write the file.

    Raises:
        LoopAnimateError: it ended with a user error.
    """
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if found.get("launch") != launch:  # left by an earlier launch
        return None
    if "error" in found:
        raise LoopAnimateError(found["error"])
    values = found["outcome"]
    return Outcome(**{**values, "request": Request(**values["request"])})


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoopAnimateError(
            "--launcher ray needs Ray, which is not installed: pip install 'ray[train]', or use accelerate launch"
        ) from error
