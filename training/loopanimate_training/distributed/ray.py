"""A run on the workers of a Ray cluster, or of this machine as one.

How a run ended travels through a file in its folder: Ray itself passes a worker's report on only together
with a checkpoint of Ray's own.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ..config import RunConfig, parse
from ..loop import Outcome, train
from ..run.requests import QUIT_FILE, Request, caught_signals
from .launch import PATIENCE

FILE = "ray-outcome.json"
RESTARTS = 3
POLL_S = 0.5


def train_on_ray(config: RunConfig, workers: int, *, allow_change: bool = False) -> Outcome:
    """Run, or go on with, a training on `workers` workers; the run's folder must lie where all see it.

    Workers that are lost are started again and go on from the newest checkpoint. A signal reaches the
    workers as the file `save_quit`.

    Raises:
        LoopAnimateError: Ray is not installed or has too few processors, the run failed on a mistake of
            the user's, or its workers were lost too often.
    """
    ray, ray_train, ray_torch = map(_import, ("ray", "ray.train", "ray.train.torch"))
    config.out.mkdir(parents=True, exist_ok=True)
    if not ray.is_initialized():
        ray.init()
    gpus = require_processors(ray.cluster_resources(), workers, config.device)
    if not gpus:  # accelerate takes a worker without a GPU for the only one, unless it is told
        config = config.model_copy(update={"device": "cpu"})
    launch = uuid.uuid4().hex
    trainer = ray_torch.TorchTrainer(
        _worker,
        train_loop_config={
            "run": config.model_dump(mode="json"), "allow_change": allow_change, "launch": launch,
            "folder": os.getcwd(),
        },
        torch_config=ray_torch.TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=ray_train.RunConfig(
            name="ray", storage_path=str(config.out.resolve()),
            failure_config=ray_train.FailureConfig(max_failures=RESTARTS),
        ),
    )  # fmt: skip
    failed = getattr(ray_train, "TrainingFailedError", RuntimeError)
    with caught_signals() as caught:
        failure = _wait(trainer.fit, config.out / QUIT_FILE, caught)
    if caught:  # the workers may have ended without it
        (config.out / QUIT_FILE).unlink(missing_ok=True)
    try:
        outcome = _read(config.out, launch)
    finally:
        (config.out / FILE).unlink(missing_ok=True)
    if isinstance(failure, failed):
        last = str(failure).strip().rpartition("\n")[2]
        raise LoopAnimateError(f"Ray's workers failed more than {RESTARTS} times; at last: {last}")
    if failure is not None:
        raise failure
    if outcome is None:
        raise LoopAnimateError(
            f"Ray's workers have ended and {config.out / FILE} does not say how: is {config.out.resolve()} on a "
            "disk that all machines see?"
        )
    if caught and outcome.request.quit:  # the file was this process's own
        return dataclasses.replace(outcome, request=Request(signal_number=caught[0]))
    return outcome


def require_processors(resources: dict[str, float], workers: int, device: str) -> bool:
    """Whether the workers get a GPU each: if the cluster has any and the run may use them.

    Raises:
        LoopAnimateError: there are fewer than workers. Ray would wait for more, for ever.
    """
    gpus = device != "cpu" and resources.get("GPU", 0) > 0
    kind = "GPU" if gpus else "CPU"
    there = int(resources.get(kind, 0))
    if there < workers:
        raise LoopAnimateError(
            f"--workers is {workers}, and the Ray cluster has {there} {kind}{'s' * (there != 1)}"
        )
    return gpus


def _wait(fit: Callable[[], object], quit_file: Path, caught: Sequence[int]) -> Exception | None:
    """Have `fit` done; returns what it failed of.

    It has a thread of its own: in the main one Ray would end the workers on Ctrl-C, saved or not.
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


def _worker(settings: dict[str, Any]) -> None:
    """One process's share.

    A mistake of the user's is written down and fails the worker, since others may be waiting for it. Ray
    starts all of them again, and they find it written.
    """
    os.chdir(settings["folder"])  # Ray has gone elsewhere, and paths may be relative
    config, launch = parse(settings["run"]), settings["launch"]
    try:
        if _read(config.out, launch) is not None:
            return
    except LoopAnimateError:
        return
    try:
        outcome = train(config, allow_change=settings["allow_change"])
    except LoopAnimateError as error:
        _write(config.out, {"launch": launch, "mistake": str(error)})
        raise
    if _import("ray.train").get_context().get_world_rank() == 0:
        _write(config.out, {"launch": launch, "outcome": dataclasses.asdict(outcome)})


def _write(run: Path, content: dict[str, Any]) -> None:
    with atomic_write(run / FILE) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def _read(run: Path, launch: str) -> Outcome | None:
    """How this launch ended; None: it has not, or nobody could write it down.

    Raises:
        LoopAnimateError: it ended with a mistake of the user's.
    """
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if found.get("launch") != launch:  # of an earlier one
        return None
    if "mistake" in found:
        raise LoopAnimateError(found["mistake"])
    values = found["outcome"]
    return Outcome(**{**values, "request": Request(**values["request"])})


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoopAnimateError(
            "the launcher ray needs Ray, which is not installed: pip install 'ray[train]', or use accelerate launch"
        ) from error
