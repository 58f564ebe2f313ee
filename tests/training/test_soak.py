"""The soak itself: each trouble happens, a difference is found, and a run that fails is not taken for a good one."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import train_in_a_child

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training import soak, testing
from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.run.log import read_log
from loopanimate_training.soak import FAULTS, Soak, finish_and_compare
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import (
    ENDLESS,
    RunProcess,
    difference,
    log_difference,
    newest_step,
    with_settings,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
Toy = Callable[..., RunConfig]
CODES = {"kill": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM, "quit": 75}


def test_each_trouble_happens_and_all_are_outlived(toy: Toy) -> None:
    trouble = Soak(toy(steps=ENDLESS), random.Random(0))
    cache = trouble.config.data.cache
    assert cache is not None
    train_in_a_child(with_settings(trouble.config, steps=2))
    for kind in FAULTS:
        before, sizes = newest_step(trouble.config.out), sizes_in(cache)
        said = trouble.fault(kind)
        after = newest_step(trouble.config.out)
        if kind == "damage":
            assert said.startswith(f"damaged step-{before:08d}/") and after == before - 1
        elif kind == "cut cache":
            cut = [path for path, size in sizes_in(cache).items() if size < sizes[path]]
            assert [path.name[:8] for path in cut] == [said.split()[1].rstrip("…")]
        else:
            assert said == f"{kind}, exit code {CODES[kind]:d}" and after >= before
    assert finish_and_compare(trouble.config) is None


def sizes_in(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in cache.rglob("*.safetensors")}


def test_it_tells_what_it_did_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--minutes", "0.05", "--seed", "2"]) == 0
    *troubles, end = capsys.readouterr().out.splitlines()
    assert troubles and all(re.match(r"step +\d+  \w+", line) for line in troubles)
    assert re.fullmatch(r"(\d+ × [\w ]+, )*\d+ × [\w ]+: equal to a run .*, bit for bit", end)


def test_one_number_that_is_off_is_found(toy: Toy) -> None:
    one = toy(steps=2)
    other = with_settings(one, out=str(one.out.with_name("other")))
    train(one)
    train(other)
    a, b = load_latest(one.out), load_latest(other.out)
    assert a is not None and b is not None
    assert difference(a, b) is None and log_difference(one.out, other.out) is None
    for what, tensors in (
        ("weights", b.weights),
        ("average", b.average),
        ("optimizer", b.optimizer["state"][0]),
    ):
        name, tensor = next((n, t) for n, t in tensors.items() if t.numel() > 1)
        exact = tensor.clone()
        tensor.view(-1)[-1] += 1e-6
        found = difference(a, b)
        assert found is not None and found.startswith(what) and found.endswith(f"{name} differs")
        tensor.copy_(exact)
    log = other.out / "log.jsonl"
    last = read_log(log)[-1]["grad_norm"]
    log.write_text(log.read_text().replace(str(last), str(last * 1.001)))
    assert "the logs differ" in (log_difference(one.out, other.out) or "")


def test_a_run_that_fails_fails_the_soak(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Path("absent.safetensors")
    monkeypatch.setattr(soak, "toy_run", lambda folder, **more: toy(folder, start=absent, **more))
    assert soak.main(["--minutes", "5"]) == 1
    assert "there is no file absent.safetensors" in capsys.readouterr().out.splitlines()[-1]


def test_a_wait_for_a_run_that_has_failed_says_why(toy: Toy) -> None:
    life = RunProcess(toy(start="absent.safetensors"))
    with pytest.raises(LoopAnimateError, match=r"(?s)code 1 before 1 steps.* no file absent\."):
        life.wait_for_steps(1)


def test_a_wait_has_an_end(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "WAIT_S", 0.05)
    life = RunProcess(toy(steps=ENDLESS))
    with pytest.raises(LoopAnimateError, match="the state 'finished': not within"):
        life.wait_for_state("finished")
    with pytest.raises(LoopAnimateError, match="did not end within"):
        life.end()
    life.process.join()
