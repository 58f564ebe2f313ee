"""The command line of the trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loopanimate_core.bundle import bundle_info
from loopanimate_training.cli import main
from loopanimate_training.config import RunConfig

MakeRun = Callable[..., RunConfig]


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_dry_run_cache_train_and_export(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(make_run(steps=1).model_dump(mode="json")))
    options = ("--stage", "1", "--config", str(file), "--set", "title=Squares")

    assert run(*options, "--dry-run") == 0
    assert "title: Squares" in capsys.readouterr().out and not (tmp_path / "run").exists()
    assert run("cache", *options) == 0
    assert "6 windows are in the cache" in capsys.readouterr().out
    assert run(*options) == 0

    bundle = tmp_path / "squares.safetensors"
    assert run("export", str(tmp_path / "run"), "-o", str(bundle)) == 0
    info = bundle_info(bundle)
    assert info.metadata["modelspec.title"] == "Squares" and info.dtype == "F16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say which stage to train"),
        (("--stage", "1"), "configuration: out: Field required"),
        (("export", "absent", "-o", "x.safetensors"), "absent holds no whole checkpoint"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
