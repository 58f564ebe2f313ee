"""The commands on a toy model: what they write and print, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from moving_picture import disc, swaying

from loopanimate_core import __version__
from loopanimate_core.cli import animate as animate_command
from loopanimate_core.cli import convert as convert_command
from loopanimate_core.cli import main, sampling
from loopanimate_core.cli import mask as mask_command
from loopanimate_core.cli.parser import build_parser
from loopanimate_core.cli.run import run_command
from loopanimate_core.closing import CLOSINGS
from loopanimate_core.conditions import CONDITIONINGS, MOTIONS
from loopanimate_core.convert import extract
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.exit_codes import ExitCode
from loopanimate_core.picture import saliency
from loopanimate_core.picture.images import load_picture, save_picture
from loopanimate_core.schedule import SCHEDULERS
from loopanimate_core.video import read_metadata, read_video, write_video

pytestmark = pytest.mark.numeric

# animate


def test_default_output_names_do_not_overwrite_files(
    animate, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [animate("--quiet"), animate("--quiet")] == [0, 0]
    assert capsys.readouterr().out.split() == ["cat_loop.mp4", "cat_loop_2.mp4"]
    assert all((folder / name).is_file() for name in ("cat_loop.mp4", "cat_loop_2.mp4"))


def test_same_seed_gives_the_same_file(animate, folder: Path) -> None:
    for seed, name in ((1, "a.mp4"), (1, "b.mp4"), (2, "c.mp4")):
        assert animate("--seed", str(seed), "-o", name) == 0
    first, second, other = ((folder / name).read_bytes() for name in ("a.mp4", "b.mp4", "c.mp4"))
    assert first == second
    assert first != other


def test_chain_joins_clips_with_their_own_seeds_and_prompts(animate, folder: Path) -> None:
    chain = ["--prompt", "up", "--prompt", "down", "--chain", "3", "--seed", "5"]
    assert animate(*chain, "-o", "chain.mkv", "--sheet", "sheet.png") == 0
    frames, _ = read_video(folder / "chain.mkv")
    assert len(frames) == 3 * 14
    assert animate("--prompt", "down", "--seed", "6", "-o", "second.mkv") == 0
    assert torch.equal(frames[14:28], read_video(folder / "second.mkv")[0])
    assert load_picture(folder / "sheet.png").height_px > 64
    assert read_metadata(folder / "chain.mkv")["prompt"] == "up | down"


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_runs(animate, folder: Path, name: str) -> None:
    assert animate("--scheduler", name, "-o", "whole.webp") == 0
    assert animate("--scheduler", name, "-o", "late.webp", "--steps", "4", "--start", "0.5") == 0
    whole, late = (read_video(folder / f"{file}.webp")[0] for file in ("whole", "late"))
    assert len(whole) == len(late) == 14 and not torch.equal(whole, late)


@pytest.mark.parametrize("closing", CLOSINGS)
def test_every_closing_runs(animate, folder: Path, closing: str) -> None:
    assert animate("--closing", closing, "-o", "loop.mkv", "--image-guidance", "1.5") == 0
    assert len(read_video(folder / "loop.mkv")[0]) == 14


def test_mask_file_is_used(animate, folder: Path) -> None:
    save_picture((disc()[..., 2] < 0.5).float(), folder / "mask.png")
    for mask in ("mask.png", "none"):
        assert animate("--mask", mask, "-o", f"{mask}.mkv") == 0
    with_mask, without = (read_video(folder / f"{mask}.mkv")[0] for mask in ("mask.png", "none"))
    assert not torch.equal(with_mask, without)


def test_demo_writes_a_moving_loop_and_its_sheet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled model on the bundled picture, as in the README's first command."""
    assert main(["demo", "--quiet"]) == 0
    names = ["loopanimate_demo.mp4", "loopanimate_demo_sheet.png"]
    assert capsys.readouterr().out.split() == names
    frames, _ = read_video(folder / names[0])
    assert float((frames - frames[0]).abs().mean((1, 2, 3)).max()) > 0.01
    assert frames.shape[1:] == (512, 512, 3)
    assert load_picture(folder / names[1]).height_px > frames.shape[1]


# mask, check, info, convert


def test_mask_finds_the_disc(folder: Path) -> None:
    assert main(["mask", "cat.png"]) == 0
    mask = load_picture(folder / "cat_mask.png").rgb[..., 0]
    disc_mask = (disc()[..., 2] < 0.5).float()
    assert mask.shape == disc_mask.shape
    assert float((mask - disc_mask).abs().mean()) < 0.05


def test_check_passes_a_loop_and_fails_a_cut(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(swaying(), folder / "good.mkv", fps=12.0)
    write_video(swaying()[:16], folder / "cut.mkv", fps=12.0)
    assert main(["check", "good.mkv", "--chart", "chart.png"]) == 0
    assert "Seamless" in capsys.readouterr().out
    assert load_picture(folder / "chart.png").width_px > 100
    assert main(["check", "cut.mkv", "--json", "--picture", "cat.png"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False and "jump" in report["reasons"]
    assert report["mse_f0"] is not None


def test_info_prints_the_header_and_the_papers_table(
    toy_bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(toy_bundle_path), "--table"]) == 0
    out = capsys.readouterr().out
    assert "Toy" in out and "15, 21, 35" in out
    # Table 1, in megabytes of float32
    for part, megabytes in (("CAB", "969.63"), ("TEMM", "1668.55"), ("TEMM.Q", "151.55")):
        (row,) = (line for line in out.splitlines() if line.split()[:1] == [part])
        assert row.split()[-1] == megabytes
    assert main(["info", str(toy_bundle_path), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["config"]["height_px"] == 64 and "table" not in values


def test_convert_extract_and_assemble(
    toy_bundle_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract = ["convert", "extract", str(toy_bundle_path), "--dtype", "float32"]
    assert main([*extract, "-o", "parts"]) == 0
    assert all(Path(line).is_file() for line in capsys.readouterr().out.splitlines())
    assert main([*extract, "-o", "parts"]) == 2  # the folder must be empty
    again = ["convert", "assemble", "--unet", "parts", "--motion", "parts/motion_adapter"]
    assert main([*again, "-o", "again.safetensors", "--title", "Again"]) == 0
    capsys.readouterr()
    assert main(["info", "again.safetensors"]) == 0
    assert "Again" in capsys.readouterr().out
    assert main([*again, "-o", "other.safetensors", "--routing", "image,text"]) == 2
    assert "image,text,text" in capsys.readouterr().err


# The program itself


def run_program(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loopanimate_core", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_option_choices_match_the_core_modules() -> None:
    assert sampling.CLOSINGS == CLOSINGS
    assert tuple(MOTIONS) == animate_command.MOTIONS
    assert convert_command.CONDITIONINGS == CONDITIONINGS
    assert set(convert_command.LAYOUTS) == set(extract.LAYOUTS)
    assert set(mask_command.METHODS) == set(get_args(saliency.Method))


def test_diffusers_option_names_are_accepted() -> None:
    theirs = ["--num-frames", "15", "--guidance-scale", "2", "--strength", "0.5"]
    ours = ["--frames", "15", "--guidance", "2", "--start", "0.5"]
    parse = build_parser().parse_args
    assert parse(["animate", "cat.png", *theirs]) == parse(["animate", "cat.png", *ours])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (LoopAnimateError("steps must be 1 or more"), 7, "program: steps must be 1 or more\n"),
        (
            OSError(28, "No space left on device", "a.mp4"),
            7,
            "program: a.mp4: No space left on device\n",
        ),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "program: stopped\n"),
    ],
    ids=["mistake", "disk", "Ctrl-C"],
)
def test_errors_print_one_sentence_and_set_the_exit_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert run_command("program", command, user_error=7, interrupted="stopped") == code
    assert capsys.readouterr().err == message


COMMANDS = [
    [],
    ["animate"],
    ["demo"],
    ["mask"],
    ["check"],
    ["batch"],
    ["info"],
    ["convert"],
    ["convert", "assemble"],
    ["convert", "extract"],
    ["convert", "apply"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_no_formatting_errors(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: loopanimate") and "None" not in out and "%(" not in out


def test_help_does_not_import_heavy_packages() -> None:
    code = """
import sys
from loopanimate_core.cli import main
try:
    main(["animate", "--help"])
except SystemExit:
    print(*{"torch", "numpy", "PIL", "cv2", "tqdm"} & set(sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.startswith("usage: loopanimate animate")
    assert result.stderr.split() == []


def test_version_and_no_command() -> None:
    assert run_program("--version").stdout.split() == ["loopanimate", __version__]
    nothing = run_program()
    assert nothing.returncode == 2 and "COMMAND" in nothing.stderr


def test_a_closed_pipe_is_not_an_error(toy_bundle_path: Path) -> None:
    """`loopanimate info … | head -1`"""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "loopanimate_core", "info", str(toy_bundle_path), "--json"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")
