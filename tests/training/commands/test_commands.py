"""The command line of the trainer."""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from loopanimate_core.bundle import bundle_info
from loopanimate_training.cli import main
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.config import RunConfig
from loopanimate_training.data.index.build import index_path
from loopanimate_training.run.log import read_log
from loopanimate_training.stages import table_rows
from loopanimate_training.storage.checkpoint import checkpoints, load_latest

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


def test_dry_run_needs_nothing_but_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """At full size, so Table 1's number of parameters."""
    assert run("--stage", "3", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "out: (missing)" in printed and "303.21 MB" in printed


def test_a_run_goes_back_to_an_earlier_checkpoint(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    settings = make_run(
        steps=3, **{"save.every_steps": 1, "save.keep": 3, "model.train": "[conv_in]"}
    )
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    options = ("--stage", "1", "--config", str(file))
    assert run(*options) == 0
    before = load_latest(settings.out)
    assert run(*options, "--resume-from", "7") == 1
    assert "no checkpoint of step 7; it has 1, 2, 3" in capsys.readouterr().err
    assert run(*options, "--set", "steps=2", "--resume-from", "1") == 0
    assert [path.name[-1] for path in checkpoints(settings.out)] == ["1", "2"]
    assert [path.name[-1] for path in sorted((settings.out / "later").iterdir())] == ["2", "3"]
    assert run(*options) == 0
    after = load_latest(settings.out)
    assert before is not None and after is not None and after.step == 3
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)
    steps = [row["step"] for row in read_log(settings.out / "log.jsonl")]
    assert steps == [1, 2, 3]


def test_a_cache_that_saves_nothing_is_called_so(make_run: MakeRun) -> None:
    said: list[str] = []
    fill_cache(make_run(steps=1), say=said.append)
    assert "takes 2 of 3 clips, each once: a cache saves it nothing" in said[0]
    said.clear()
    fill_cache(make_run(steps=2), say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--stage is missing; choose one of 1, 2, 3"),
        (("--stage", "1"), "configuration: out: Field required"),
        (("export", "absent", "-o", "x.safetensors"), "absent has no complete checkpoint"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


# Arguments after `--config run.yaml`, where {bad} is a file that is not UTF-8 and run.yaml is of stage 1.
LONG_NAME = "a" * 300  # longer than any file system allows
WITH_A_RUN = {
    "an override that is not YAML": (
        ("--stage", "1", "--set", "model.train=[a"),
        "--set 'model.train=[a' is not valid YAML",
    ),
    "an invalid date": (
        ("--stage", "1", "--set", "title=2026-13-45"),
        "--set 'title=2026-13-45' is not valid YAML: month must be in 1..12",
    ),
    "settings that are not UTF-8": (
        ("--stage", "1", "--config", "{bad}"),
        "bad.yaml is not UTF-8 text (byte 7 is 0xe9); save it as UTF-8",
    ),
    "a number out of range": (
        ("--stage", "1", "--set", "optimizer.lr=-1e-4"),
        "optimizer.lr: Input should be greater than 0, not -0.0001",
    ),
    "a string instead of a number": (
        ("--stage", "1", "--set", "model.unet={{norm_eps: small}}"),
        "model.unet: norm_eps of the UNet must be a number above 0, got 'small'",
    ),
    "another stage": (("--stage", "2"), "the settings have stage = 1, but --stage 2 means 2"),
    "another variant": (
        ("--stage", "1-lora"),
        "the settings have variant = '', but --stage 1-lora means 'lora'",
    ),
    "out is a file": (
        ("--stage", "1", "--set", "out={bad}"),
        "bad.yaml; that folder cannot be created: File exists",
    ),
    "out is below a file": (
        ("--stage", "1", "--set", "out={bad}/run"),
        "bad.yaml/run; that folder cannot be created: Not a directory",
    ),
    "the cache is a file": (
        ("--stage", "1", "--set", "data.cache={bad}"),
        "bad.yaml is a file",
    ),
    "an unknown compiler": (
        ("--stage", "1", "--set", "model.compile=foo"),
        "model.compile is 'foo'; choose one of ",
    ),
}


@pytest.mark.parametrize("arguments, message", WITH_A_RUN.values(), ids=WITH_A_RUN.keys())
def test_mistakes_in_a_run_are_one_sentence(
    arguments: tuple[str, ...],
    message: str,
    make_run: MakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, bad = tmp_path / "run.yaml", tmp_path / "bad.yaml"
    file.write_text(json.dumps(make_run(steps=1).model_dump(mode="json")))
    bad.write_bytes("title: été".encode("latin-1"))
    filled = [argument.format(bad=bad) for argument in arguments]
    assert run("--config", str(file), *filled) == 1
    assert_one_sentence(capsys, message)


def test_a_cache_command_without_a_folder(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(make_run().model_dump(mode="json")))
    options = ("--stage", "1", "--config", str(file), "--set", f"data.cache={file}")
    assert run("cache", *options) == 1
    assert_one_sentence(capsys, "run.yaml; that folder cannot be created: File exists")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_while_indexing(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_run(**{"data.index": tmp_path / "index"})
    (tmp_path / "index").mkdir()
    index_path(config.data).with_suffix(".journal").symlink_to("/dev/full")
    (tmp_path / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    assert run("index", str(tmp_path / "run.yaml")) == 1
    assert_one_sentence(
        capsys, "No space left on device; the same command will continue where it stopped"
    )


def test_inspect_shows_the_stage_of_the_settings(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    config = make_run("3-qk").model_dump(mode="json")
    file.write_text(json.dumps(config))
    assert run("inspect", str(file)) == 0
    assert "stage 3-qk" in (shown := capsys.readouterr().out) and "stage 1" not in shown
    assert run("index", str(file)) == 0
    file.write_text(json.dumps({name: config[name] for name in ("clip", "data")}))
    assert run("inspect", str(file)) == 0
    assert "stage 1" in (shown := capsys.readouterr().out) and "stage 3" in shown


def test_inspect_counts_the_clips_of_each_shape(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three films of 48 x 36, and one that is too short."""
    file = tmp_path / "run.yaml"
    for shapes, row in (("[]", ""), ("[[32, 32], [40, 24]]", "32 x 32 (0), 40 x 24 (3)")):
        config = make_run(**{"clip.shapes": shapes})
        file.write_text(json.dumps(config.model_dump(mode="json")))
        assert run("inspect", str(file)) == 0
        shown = capsys.readouterr().out
        assert (row in shown) if row else "shapes" not in shown


def test_errors_of_the_operating_system_are_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("inspect", LONG_NAME) == 1
    assert_one_sentence(capsys, f"{LONG_NAME}: File name too long")


def test_help_shows_the_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(line in shown for line in table_rows())


COMMANDS = {
    "loop:train": (),
    "commands.plan:plan": ("plan",),
    "data.survey:survey": ("inspect", "."),
    "data.index.build:open_index": ("index", "."),
    "commands.cache:fill_cache": ("cache",),
    "run.report:write_page": ("report", "."),
    "model.export:read_run": ("export", ".", "-o", "x.safetensors"),
}


@pytest.mark.parametrize("place, arguments", COMMANDS.items(), ids=COMMANDS.keys())
def test_ctrl_c_is_one_sentence_in_every_command(
    place: str,
    arguments: tuple[str, ...],
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    module, name = place.split(":")
    monkeypatch.setattr(importlib.import_module(f"loopanimate_training.{module}"), name, interrupt)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(make_run().model_dump(mode="json")))
    if arguments in ((), ("plan",), ("cache",)):
        arguments = (*arguments, "--stage", "1", "--config", str(file))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(*arguments) == 130
    except KeyboardInterrupt:
        pytest.fail("KeyboardInterrupt was not caught")  # it would end the test session
    finally:
        signal.signal(signal.SIGINT, before)
    assert_one_sentence(capsys, "interrupted; the same command continues from what is saved")


def assert_one_sentence(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """Stderr holds one sentence besides progress bars, which end in a carriage return or newline."""
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    said = [line for line in errors.splitlines() if line.startswith("loopanimate-train: ")]
    assert len(said) == 1 and message in said[0] and errors.endswith(said[0] + "\n")
