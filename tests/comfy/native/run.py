"""Checks of the native types in ComfyUI's own Python process.

    PYTHONPATH=COMFYUI python run.py FOLDER

FOLDER holds what `test_native_checks.py` made: bundles, parts, and the core's results for them. Every
function `check_…` of the modules below runs; the last line printed is a JSON object of their tracebacks, null if
a check passed.
"""

# ruff: noqa: E402  (the device is chosen before anything looks for a GPU, and the checks import the pack)
from __future__ import annotations

import json
import math
import sys
import time
import traceback

from comfy.cli_args import args

args.cpu = True

from toy import SIDE, core, import_pack

import_pack()

import closings
import controls
import loading
import memory
import same_numbers
import torch

MODULES = (loading, same_numbers, closings, controls, memory)


def main() -> None:
    assert math.isclose(core()["still"].shape[-1], SIDE)
    results: dict[str, str | None] = {}
    checks = {name: check for module in MODULES for name, check in vars(module).items()}
    for name, check in checks.items():
        if name.startswith("check_"):
            started = time.monotonic()
            try:
                with torch.inference_mode():  # as in ComfyUI's executor
                    check()
                results[name] = None
            except Exception:
                results[name] = traceback.format_exc()
            print(f"{time.monotonic() - started:6.2f} s {name}", file=sys.stderr)
    print(json.dumps(results))


main()
