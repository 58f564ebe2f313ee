"""`loopanimate evaluate`: pictures and prompts × systems → the paper's tables, a page, a blind study."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LoopAnimateError
from ..exit_codes import ExitCode
from ..files import make_folder
from .options import Commands, add_command, add_force
from .outputs import require_writable
from .sampling import add_device_options, add_frames_option, add_sampling_options, pick_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..evaluate import BundleSystem, FolderSystem, Row
    from ..evaluate.encoder import Encoder
    from ..evaluate.systems import System

# A copy, because the module of the original imports torch; a test compares the two.
BASELINES = ("still", "ping-pong", "crossfade", "best-cut")

EPILOG = """\
examples:
  loopanimate evaluate -o evaluation                      # the bundled pictures, the mini, all baselines
  loopanimate evaluate pictures/ -o evaluation --bundle mini --bundle ours=model.safetensors --detail
  loopanimate evaluate test.csv -o evaluation --videos svd=svd_videos/ --baseline all --clip clip-vit-large-patch14/
  loopanimate evaluate test.csv -o evaluation --bundle ours=model.safetensors --study study.html
  loopanimate evaluate --collect answers/*.json --key study_key.json -o evaluation

Pictures are a folder (cat.png with its prompt in cat.txt and its mask in cat_mask.png), or a .csv or .jsonl list with
picture, prompt and mask. Finished loops are not made again: the same command continues. A loop that fails is
listed with its reason, and the exit code is 1.
"""


def add_parser(commands: Commands) -> None:
    """Add the command `evaluate`."""
    parser = add_command(
        commands,
        "evaluate",
        "compare models, videos from elsewhere and baselines on a set of pictures",
        run,
        usage="%(prog)s [PICTURES] -o FOLDER [--bundle NAME=FILE ...] [options]",
        epilog=EPILOG,
    )
    parser.add_argument(
        "pictures",
        nargs="?",
        metavar="PICTURES",
        help="a folder or a list (default: the pictures that come with the package)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", required=True, help="tables, page and loops"
    )
    parser.add_argument(
        "--prompt", default="", metavar="TEXT", help="the prompt of pictures without their own"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    _add_systems(parser.add_argument_group("systems (default: the bundled mini and all baselines)"))
    _add_sampling(parser.add_argument_group("sampling of the bundles (defaults: each model's own)"))
    _add_measuring(parser.add_argument_group("measuring"))
    _add_study(parser.add_argument_group("user study"))


def _add_systems(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bundle",
        metavar="[NAME=]FILE",
        action="append",
        help="a model file, or `mini` for the bundled one; repeat it for more",
    )
    group.add_argument(
        "--videos",
        metavar="[NAME=]FOLDER",
        action="append",
        help="loops of another tool: cat.mp4 (.webm, .gif, a folder of PNGs, …) belongs to the picture cat.png",
    )
    group.add_argument(
        "--baseline",
        choices=[*BASELINES, "all"],
        action="append",
        help="a loop without a model that loops; repeat it for more",
    )
    group.add_argument(
        "--baseline-of",
        metavar="NAME",
        help="the system whose clips the baselines are made of, a bundle's without closing"
        " (default: the first system)",
    )
    group.add_argument(
        "--detail",
        action="store_true",
        help="a second row for each bundle: its motion in the picture's own pixels",
    )


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides the seed of each picture"
    )
    add_frames_option(group)
    add_sampling_options(group)
    add_device_options(group)


def _add_measuring(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--clip",
        metavar="FOLDER|FILE",
        help="CLIP for CLIP-I, FC and Loop-C: a folder as transformers saves it, or a bundle, whose own encoder"
        " is taken (default: the bundled mini's)",
    )
    group.add_argument(
        "--size-px",
        type=int,
        default=512,
        metavar="PX",
        help="larger loops are shrunk to this longer side before they are measured",
    )


def _add_study(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--study",
        metavar="FILE",
        help="also write a blind study: one HTML page to hand out, and beside it the key to keep (of study.html:"
        " study_key.json)",
    )
    group.add_argument(
        "--study-pictures", type=int, default=20, metavar="N", help="pictures in the study"
    )
    group.add_argument(
        "--collect",
        nargs="+",
        metavar="FILE",
        help="make the tables of these answers instead of evaluating",
    )
    group.add_argument("--key", metavar="FILE", help="the key file of the study, for --collect")
    add_force(group, "an existing study")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, or collect the answers of a study; 1 if a loop failed."""
    out = Path(arguments.output)
    if arguments.collect:
        return _collect(arguments, out)
    study = None if arguments.study is None else Path(arguments.study)
    if not 64 <= arguments.size_px <= 4096:
        raise LoopAnimateError(f"--size-px must be from 64 to 4096, got {arguments.size_px}")
    from ..evaluate import evaluate, read_cases, write_page, write_tables
    from ..evaluate.cases import BUNDLED_LIST
    from ..evaluate.encoder import open_encoder
    from ..evaluate.study import key_path
    from ..extras import require_module

    for path in (study, key_path(study)) if study is not None else ():
        require_writable(path, arguments.force)
    require_module("cv2", "the optical flow of an evaluation")
    source = Path(arguments.pictures) if arguments.pictures else BUNDLED_LIST
    cases = read_cases(source, arguments.prompt, arguments.limit)
    device, dtype = pick_device(arguments.device, arguments.dtype)
    encoder = open_encoder(None if arguments.clip is None else Path(arguments.clip), device)
    systems = build_systems(arguments, device, dtype)
    make_folder(out)
    rows = evaluate(cases, systems, encoder, out, _show)
    facts = {system.name: system.facts() for system in systems}
    about = {"seed": arguments.seed, "size_px": arguments.size_px, "about": facts}
    written = write_tables(rows, encoder, out, about)
    written.append(write_page(cases, rows, encoder, out))
    if study is not None:
        from ..evaluate import write_study

        pictures = arguments.study_pictures
        written += write_study(cases, rows, out, study, facts, pictures, arguments.seed)
    return _report(rows, encoder, written)


def build_systems(
    arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> list[System]:
    """The systems that the options name, in the order bundles, videos, baselines.

    Raises:
        LoopAnimateError: a file, a folder or the system of --baseline-of is not there.
    """
    from ..evaluate import Baseline, BundleSystem, FolderSystem

    names = ("frames", "steps", "guidance", "scheduler", "closing")
    settings = {name: getattr(arguments, name) for name in names}
    settings = {name: value for name, value in settings.items() if value is not None}
    if arguments.fast:
        settings["preset"] = "fast"
    clips: list[BundleSystem | FolderSystem] = []
    for text in arguments.bundle or ([] if arguments.videos else ["mini"]):
        name, value = _named(text)
        path = None if value == "mini" else Path(value)
        clips.append(
            BundleSystem(
                name,
                path,
                settings,
                arguments.seed,
                arguments.size_px,
                arguments.detail,
                device,
                dtype,
            )
        )
    for text in arguments.videos or []:
        name, value = _named(text)
        clips.append(FolderSystem(name, Path(value), arguments.size_px))
    asked = arguments.baseline or ([] if arguments.bundle or arguments.videos else ["all"])
    source = _baseline_source(clips, arguments.baseline_of)
    baselines = [
        Baseline(name, None if name == "still" else source, arguments.size_px)
        for name in BASELINES
        if name in asked or "all" in asked
    ]
    return [*clips, *baselines]


def _named(text: str) -> tuple[str, str]:
    """The name and the path of `NAME=PATH`, or of a path, whose last part is then the name."""
    name, equals, value = text.partition("=")
    if equals and not Path(text).exists():
        return name, value
    return Path(text).name.removesuffix(".safetensors"), text


def _baseline_source(
    clips: Sequence[BundleSystem | FolderSystem], name: str | None
) -> BundleSystem | FolderSystem:
    """The system whose clips the baselines close; a bundle then draws clips that are not closed."""
    from ..evaluate import BundleSystem

    found = [system for system in clips if name in (None, system.name)]
    if not found:
        names = ", ".join(system.name for system in clips)
        raise LoopAnimateError(f"--baseline-of must be one of {names}, got {name!r}")
    return found[0].open_clips() if isinstance(found[0], BundleSystem) else found[0]


def _show(row: Row) -> None:
    """One line for each loop."""
    found = row.figures["verdict"] if row.made else f"failed: {row.reason}"
    print(f"{row.label}: {row.picture}: {found}", flush=True)


def _report(rows: Sequence[Row], encoder: Encoder, written: Sequence[Path]) -> int:
    """Print the table and the files; 1 if a loop failed."""
    from ..evaluate.table import summarise, text_table

    print(f"\n{text_table(summarise(rows), encoder)}\n")
    for path in written:
        print(path)
    failed = sum(not row.made for row in rows)
    if failed:
        print(f"{failed} of {len(rows)} loops failed; the page lists the reasons")
    return ExitCode.FAILED if failed else ExitCode.OK


def _collect(arguments: argparse.Namespace, out: Path) -> int:
    """Print and write Tables 3 and 4 of the answers."""
    if arguments.key is None:
        raise LoopAnimateError("--collect needs --key, the file that was written beside the study")
    from ..evaluate import collect_answers
    from ..evaluate.collect import text_tables, write_results

    results = collect_answers([Path(name) for name in arguments.collect], Path(arguments.key))
    make_folder(out)
    print(f"{text_tables(results)}\n")
    for path in write_results(results, out):
        print(path)
    return ExitCode.OK
