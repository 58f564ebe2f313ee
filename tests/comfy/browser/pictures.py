"""Take the README's screenshots of ComfyUI again, from a run of the basic workflow on a new server.

    make comfy-pictures [ARGS='--url RUNNING_SERVER']

They show the front-end that the extra `page` installs. $PLAYWRIGHT_CORE and $CHROMIUM are used as in test_page.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from comfy_server import PACK, ComfyServer, find_comfyui, front_end
from PIL import Image

WIDE_PX = 2000
NODES_PX = 1500
GAP_PX = 24
PAPER = (23, 23, 24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running ComfyUI with this extension")
    url = parser.parse_args().url
    with tempfile.TemporaryDirectory() as folder:
        if url:
            _take(url, Path(folder))
        else:
            _take_on_own_server(Path(folder))
        _save(Image.open(Path(folder, "basic.png")), WIDE_PX, "comfyui_basic.jpg")
        nodes = [Image.open(Path(folder, f"{name}.png")) for name in ("sampling", "check", "seam")]
        _save(_side_by_side(nodes), NODES_PX, "comfyui_loop_check.jpg")


def _take_on_own_server(folder: Path) -> None:
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI found; set COMFYUI_PATH to the folder that holds its main.py")
    newest = front_end()
    arguments = ["--front-end-root", str(newest)] if newest else []
    server = ComfyServer.start(root, folder / "server", extra_args=arguments)
    try:
        _take(server.url, folder)
    finally:
        server.stop()


def _take(url: str, folder: Path) -> None:
    playwright = os.environ.get("PLAYWRIGHT_CORE", "~/comfy/browser/node_modules")
    options = {
        "url": url,
        "vue": front_end() is not None,
        "browser": os.environ.get("CHROMIUM", "/usr/bin/chromium"),
        "playwright": str(Path(playwright).expanduser()),
        "workflow": str(PACK / "workflows" / "LoopAnimate picture to loop.json"),
        "folder": str(folder),
    }
    script = Path(__file__).with_suffix(".mjs")
    subprocess.run(["node", str(script), json.dumps(options)], check=True)


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    width = sum(picture.width for picture in pictures) + GAP_PX * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP_PX
    return sheet


def _save(picture: Image.Image, width_px: int, name: str) -> None:
    height_px = round(picture.height * width_px / picture.width)
    small = picture.convert("RGB").resize((width_px, height_px), Image.Resampling.LANCZOS)
    small.save(PACK / "assets" / name, quality=88, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
