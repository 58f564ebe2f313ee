"""Take the pictures of the templates and of the help pages again, from a real run of every template.

    make comfy-thumbnails [ARGS='[--url RUNNING_SERVER] ["LoopAnimate seed hunt" ...]']

writes workflows/*.jpg, which play the loops that the templates saved, and web/docs/*.jpg. $PLAYWRIGHT_CORE and
$CHROMIUM are used as in test_page.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from comfy_server import PACK, ComfyServer, find_comfyui
from PIL import Image, ImageOps

from loopanimate_core.video.read import stream_video

CARD_PX = (480, 360)  # the templates dialog shows 4:3
PAPER = (23, 23, 24)
PLAYED_FPS = 12.0
LARGEST_BYTES = 390_000
LONGEST_PX = 1000
WIDE = 2.0  # a wider template is cropped to its more informative end
PARTS = "LoopAnimate Stable Diffusion parts"  # it is not run, because its models are not available; its beginning is shown

# Which template shows a node best, and what its help page calls the picture. The picture of the
# interpolation pair is a drawing.
NODES = {
    "LoopAnimate picture to loop": {
        "LoopAnimate_LoadLoopAnimate": "load_loopanimate",
        "LoopAnimate_BuildLoopConditions": "build_loop_conditions",
        "LoopAnimate_LoopSampler": "loop_sampler",
        "LoopAnimate_DetailTransfer": "detail_transfer",
        "LoopAnimate_LoopCheck": "loop_check",
        "LoopAnimate_SaveLoop": "save_loop",
    },
    "LoopAnimate folder of pictures": {
        "LoopAnimate_LoadPictureFromFolder": "load_picture_from_folder"
    },
    "LoopAnimate wallpapers and sticker": {"LoopAnimate_SalientMask": "salient_mask"},
    "LoopAnimate long loop of three motions": {"LoopAnimate_ChainLoops": "chain_loops"},
}

Loop = tuple[list[Image.Image], float]
"""Frames of CARD_PX in height at most, and their fps."""


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
            if not folder.joinpath(f"{picture.stem}.webp").exists():
                _save(picture)
        for card in folder.glob("*.webp"):
            card.replace(PACK / "workflows" / f"{card.stem}.jpg")


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
    for path in paths:
        saved = json.loads(folder.joinpath(f"{path.stem}.json").read_text())
        loops = [_loop(url, entry, folder) for entry in saved]
        if loops:
            _play(loops, folder / f"{path.stem}.webp")


def _loop(url: str, entry: dict[str, Any], folder: Path) -> Loop:
    """One repeat of a saved loop, small."""
    where = {key: entry[key] for key in ("filename", "subfolder", "type")}
    copy = folder / f"saved_{entry['filename']}"
    with urllib.request.urlopen(f"{url}/view?{urllib.parse.urlencode(where)}") as answer:
        copy.write_bytes(answer.read())
    pictures, fps = stream_video(copy, alpha=True)
    frames = []
    for picture, _ in zip(pictures, range(entry["frames"]), strict=False):
        small = Image.fromarray(picture, "RGBA")
        small.thumbnail((small.width, CARD_PX[1]), Image.Resampling.LANCZOS)
        frames.append(small)
    return frames, fps


def _play(loops: list[Loop], path: Path) -> None:
    """The loops beside each other as an animated picture; a single one fills it."""
    longest, fps = max(loops, key=lambda loop: len(loop[0]) / loop[1])
    count = max(2, round(len(longest) / fps * min(fps, PLAYED_FPS)))
    cards = []
    for number in range(count):
        now = [frames[number * len(frames) // count] for frames, _ in loops]
        cards.append(_card(now))
    duration_ms = round(1000 * len(longest) / fps / count)
    for quality in (70, 55, 40, 25, 10):
        settings = {"duration": duration_ms, "loop": 0, "quality": quality, "method": 4}
        cards[0].save(path, save_all=True, append_images=cards[1:], **settings)
        if path.stat().st_size < LARGEST_BYTES:
            return


def _card(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a row, each as large as its share of the card allows."""
    card = Image.new("RGB", CARD_PX, PAPER)
    if len(pictures) == 1:
        whole = ImageOps.fit(pictures[0], CARD_PX, Image.Resampling.LANCZOS)
        card.paste(whole, mask=whole.getchannel("A"))
        return card
    share = CARD_PX[0] // len(pictures)
    for number, picture in enumerate(pictures):
        small = ImageOps.contain(picture, (share - 8, CARD_PX[1] - 16), Image.Resampling.LANCZOS)
        left = number * share + (share - small.width) // 2
        card.paste(small, (left, (CARD_PX[1] - small.height) // 2), small.getchannel("A"))
    return card


def _save(path: Path) -> None:
    """A thumbnail beside its template, or a node's picture beside its help page."""
    picture = Image.open(path).convert("RGB")
    if not path.stem.startswith("LoopAnimate "):
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
