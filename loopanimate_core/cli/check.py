"""`loopanimate check`: does a video file loop without a visible seam?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..exit_codes import ExitCode
from .options import Commands, add_command, add_force
from .outputs import require_writable

if TYPE_CHECKING:
    from ..check import LoopReport


def add_parser(commands: Commands) -> None:
    """Add the command `check`."""
    parser = add_command(
        commands,
        "check",
        "measure whether a video file loops without a visible seam",
        run,
        epilog="The exit code is 0 for a loop without a visible seam and 1 for any other video.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="a video, an animated picture or a folder of PNGs"
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="the still, to measure how much the first frame differs"
    )
    parser.add_argument("--chart", metavar="FILE", help="also write a chart of the seam (PNG)")
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    add_force(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decode the file, print the verdict and the measurements, and return 1 if it does not loop."""
    chart = None if arguments.chart is None else Path(arguments.chart)
    if chart is not None:
        require_writable(chart, arguments.force)
    from ..check import check_file
    from ..picture.images import check_picture_suffix, load_picture, save_picture

    if chart is not None:
        check_picture_suffix(chart)
    reference = None if arguments.picture is None else load_picture(arguments.picture)
    report = check_file(arguments.file, reference=reference)
    if chart is not None:
        from ..check.chart import seam_chart

        save_picture(seam_chart(report), chart)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print("\n".join([report.summary, *_report_lines(report)]))
    return ExitCode.OK if report.passed else ExitCode.FAILED


def _report_lines(report: LoopReport) -> list[str]:
    """The measurements as lines; those that could not be measured are skipped."""
    rows = (
        ("motion (median step, 0-255)", report.motion, 2),
        ("seam / median step", report.seam_ratio, 2),
        ("seam / steps around it", report.seam_jump, 2),
        ("seam / steps around it, full size", report.seam_pop, 2),
        ("seam acceleration", report.seam_acceleration, 2),
        ("colour step at the seam", report.colour_step, 2),
        ("colour drift", report.colour_drift, 2),
        ("SSIM of neighbours (the paper's Motion)", report.ssim_adjacent, 3),
        ("MSE of the first frame to the picture", report.mse_f0, 1),
    )
    shown = [(name, f"{value:.{digits}f}") for name, value, digits in rows if value is not None]
    width = max(len(name) for name, _ in shown)
    return [f"  {name:{width}}  {value}" for name, value in shown]
