"""Take the pictures of the templates and of the help pages again, from a real run of every template.

    make comfy-thumbnails [ARGS='[--url RUNNING_SERVER] [TEMPLATE ...]']

writes workflows/*.jpg and web/docs/*.jpg. $PLAYWRIGHT_CORE and $CHROMIUM are used as in test_page.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from comfy_server import PACK, ComfyServer, find_comfyui
from PIL import Image

LONGEST_PX = 1000
WIDE = 2.0  # a wider template is cropped to its more informative end
PARTS = "loopanimate_parts_sd15"  # it is not run, because its models are not available; its beginning is shown

# Which template shows a node best, and what its help page calls the picture. The picture of the
# interpolation pair is a drawing.
NODES = {
    "loopanimate_basic": {
        "LoopAnimate_LoadLoopAnimate": "load_loopanimate",
        "LoopAnimate_BuildLoopConditions": "build_loop_conditions",
        "LoopAnimate_LoopSampler": "loop_sampler",
        "LoopAnimate_DetailTransfer": "detail_transfer",
        "LoopAnimate_LoopCheck": "loop_check",
        "LoopAnimate_SaveLoop": "save_loop",
    },
    "loopanimate_batch_folder": {"LoopAnimate_LoadPictureFromFolder": "load_picture_from_folder"},
    "loopanimate_wallpaper": {"LoopAnimate_SalientMask": "salient_mask"},
    "loopanimate_long_chain": {"LoopAnimate_ChainLoops": "chain_loops"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running ComfyUI with this extension")
    parser.add_argument("templates", nargs="*", help="names of templates (default: all)")
    arguments = parser.parse_args()
    paths = sorted((PACK / "workflows").glob("*.json"))
    if arguments.templates:
        paths = [path for path in paths if path.stem in arguments.templates]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.url:
            _take(arguments.url, folder, paths)
        else:
            _take_on_own_server(folder, paths)
        for picture in sorted(folder.glob("*.png")):
            _save(picture)


def _take_on_own_server(folder: Path, paths: list[Path]) -> None:
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI found; set COMFYUI_PATH to the folder that holds its main.py")
    server = ComfyServer.start(root, folder / "server")
    try:
        _take(server.url, folder, paths)
    finally:
        server.stop()


def _take(url: str, folder: Path, paths: list[Path]) -> None:
    playwright = os.environ.get("PLAYWRIGHT_CORE", "~/comfy/browser/node_modules")
    templates = [
        {
            "name": path.stem,
            "path": str(path),
            "runs": path.stem != PARTS,
            "nodes": NODES.get(path.stem, {}),
        }
        for path in paths
    ]
    options = {
        "url": url,
        "browser": os.environ.get("CHROMIUM", "/usr/bin/chromium"),
        "playwright": str(Path(playwright).expanduser()),
        "folder": str(folder),
        "templates": templates,
    }
    script = Path(__file__).with_suffix(".mjs")
    subprocess.run(["node", str(script), json.dumps(options)], check=True)


def _save(path: Path) -> None:
    """A thumbnail beside its template, or a node's picture beside its help page."""
    picture = Image.open(path).convert("RGB")
    if not path.stem.startswith("loopanimate_"):
        picture.save(PACK / "web/docs" / f"{path.stem}.jpg", quality=88, optimize=True)
        return
    width, height = picture.size
    if width > WIDE * height:
        cut = round(height * 16 / 9)
        left = 0 if path.stem == PARTS else width - cut
        picture = picture.crop((left, 0, left + cut, height))
    picture.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    picture.save(PACK / "workflows" / f"{path.stem}.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
