"""Runs on two workers of a real Ray on this machine; without Ray (`pip install 'ray[train]'`) they are skipped."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import SMOOTH, assert_close_runs, train_in_a_child
from waiting import HANGS_S, wait_until

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.cli import main
from loopanimate_training.config import RunConfig
from loopanimate_training.distributed import ray as on_ray
from loopanimate_training.distributed.launch import TIMEOUT
from loopanimate_training.distributed.ray import require_processors, train_on_ray
from loopanimate_training.loop import train
from loopanimate_training.run.heartbeat import TRAINING, Heartbeat, read_heartbeat
from loopanimate_training.run.log import FILE as LOG
from loopanimate_training.run.log import read_log
from loopanimate_training.signals import QUIT_FILE
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import toy_run

pytestmark = pytest.mark.numeric

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'ray[train]'"
)
Toy = Callable[..., RunConfig]


@pytest.fixture
def toy(tmp_path: Path, toy_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.chdir(tmp_path)  # for relative paths

    def make(name: str = "run", **settings: Any) -> RunConfig:
        more = {"device": "auto", "save.every_steps": 100, **settings}
        return toy_run(tmp_path, toy_bundle_path, out=Path(name), **more)

    return make


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray on this machine, with two processors whether it has them or not."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(HANGS_S))  # busy machines
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False)
    yield ray
    ray.shutdown()


def losses(config: RunConfig) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_log(config.out / LOG)]


def wait_for_steps(config: RunConfig, steps: int) -> None:
    wait_until(f"step {steps}", lambda: any(step >= steps for step, _ in losses(config)))


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Do something on a thread while the run is under way; what goes wrong there fails the test."""
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []

    def begin(action: Callable[[], None]) -> None:
        def run() -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(HANGS_S)
    assert not errors and not any(thread.is_alive() for thread in threads), errors


@needs_ray
def test_two_workers_take_the_steps_of_one_process(ray: Any, toy: Toy) -> None:
    settings = {"steps": 3, **SMOOTH}
    alone, shared = toy("alone", **settings), toy("shared", **settings)
    train_in_a_child(alone)
    outcome = train_on_ray(train, shared, 2)
    assert (outcome.step, outcome.exit_code) == (3, 0)
    assert [step for step, _ in losses(shared)] == [1, 2, 3]  # of one process each: six rows
    assert_close_runs(shared, alone)


@needs_ray
def test_a_mistake_that_one_worker_sees_ends_all_and_is_one_sentence(
    ray: Any, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy()
    Heartbeat(config.out, 3, active=True).beat(1, TRAINING)  # this very process
    Path("run.yaml").write_text(config.model_dump_json())
    with pytest.raises(SystemExit) as ended:
        main(["--stage", "1", "--config", "run.yaml", "--launcher", "ray", "--workers", "2"])
    errors = capsys.readouterr().err
    said = [line for line in errors.splitlines() if line.startswith("loopanimate-train: ")]
    assert ended.value.code == 1 and len(said) == 1
    assert f"process {os.getpid()} is training in run" in said[0]
    assert not (config.out / on_ray.FILE).exists()


@needs_ray
def test_killed_workers_are_started_again_and_the_run_finishes(
    ray: Any, toy: Toy, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    config = toy(steps=30, **{"save.every_steps": 1})
    killed: list[int] = []

    processes = pytest.importorskip("psutil")  # accelerate brings it

    def kill_the_first_then_another() -> None:
        wait_for_steps(config, 2)
        first = (read_heartbeat(config.out) or {})["pid"]
        killed.append(first)
        os.kill(first, signal.SIGKILL)
        wait_until("rank 0 is back", lambda: (read_heartbeat(config.out) or {})["pid"] != first)
        wait_for_steps(config, losses(config)[-1][0] + 2)
        family = processes.Process().children(recursive=True)
        workers = [p.pid for p in family if "RayTrainWorker" in " ".join(p.cmdline())]
        killed.append(next(p for p in workers if p != (read_heartbeat(config.out) or {})["pid"]))
        os.kill(killed[1], signal.SIGKILL)

    meanwhile(kill_the_first_then_another)
    outcome = train_on_ray(train, config, 2)
    assert (outcome.step, outcome.exit_code) == (30, 0) and len(killed) == 2
    assert [step for step, _ in losses(config)] == list(range(1, 31))


@needs_ray
def test_a_signal_saves_and_has_its_exit_code(
    ray: Any, toy: Toy, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    config = toy(steps=100_000)

    def terminate() -> None:
        wait_for_steps(config, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    meanwhile(terminate)
    outcome = train_on_ray(train, config, 2)
    found = load_latest(config.out)
    assert outcome.exit_code == 128 + signal.SIGTERM
    assert found is not None and found.step == outcome.step < 100_000
    assert not (config.out / QUIT_FILE).exists() and not (config.out / on_ray.FILE).exists()


@needs_ray
def test_ray_waits_as_long_as_other_launchers(
    ray: Any, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Recorder:
        def __init__(self, _: object, **settings: Any) -> None:
            asked.update(settings)

        def fit(self) -> None: ...

    monkeypatch.setattr("ray.train.torch.TorchTrainer", Recorder)
    with pytest.raises(LoopAnimateError, match=r"does not say how: is .* on a disk that all"):
        train_on_ray(train, toy(), 2)
    assert asked["torch_config"].timeout_s == TIMEOUT.total_seconds()
    assert not asked["scaling_config"].use_gpu
    assert asked["train_loop_config"]["run"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("resources", "device", "gpus"),
    [
        ({"CPU": 4.0}, "auto", False),
        ({"CPU": 4.0, "GPU": 2.0}, "auto", True),
        ({"CPU": 4.0, "GPU": 2.0}, "cpu", False),
    ],
)
def test_gpus_are_asked_for_where_there_are_some(
    resources: dict[str, float], device: str, gpus: bool
) -> None:
    assert require_processors(resources, 2, device) is gpus


def test_more_workers_than_processors_are_refused() -> None:
    with pytest.raises(LoopAnimateError, match=r"--workers is 3, and the Ray cluster has 1 GPU$"):
        require_processors({"CPU": 8.0, "GPU": 1.0}, 3, "auto")
    with pytest.raises(LoopAnimateError, match="has 2 CPUs"):
        require_processors({"CPU": 2.0}, 3, "auto")


def test_without_ray_there_is_one_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(toy().model_dump_json())
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as ended:
        main(["--stage", "1", "--config", "run.yaml", "--launcher", "ray", "--workers", "2"])
    assert ended.value.code == 1 and "pip install 'ray[train]'" in capsys.readouterr().err
    assert not Path("run").exists()


def test_what_an_earlier_launch_left_is_not_believed(tmp_path: Path) -> None:
    content = {"launch": "a", "error": "of yesterday"}
    (tmp_path / on_ray.FILE).write_text(json.dumps(content))
    assert on_ray._read(tmp_path, "b") is None
    with pytest.raises(LoopAnimateError, match="of yesterday"):
        on_ray._read(tmp_path, "a")
    (tmp_path / on_ray.FILE).write_text('{"launch": "a", "outc')
    assert on_ray._read(tmp_path, "a") is None
