"""Loops as a page plays them: one picture with all frames, and where each frame is on it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..files import atomic_write
from ..picture.images import to_uint8
from ..picture.sheet import SheetLayout, draw_sheet, plan_sheet
from .store import Clip

ASSETS = Path(__file__).parent
QUALITY = 85


def sheet_facts(clip: Clip, layout: SheetLayout, source: str) -> dict[str, Any]:
    """What `player.js` needs to play a sheet; `source` is its address."""
    return {
        "sheet": source,
        "frames": layout.frames,
        "columns": layout.columns,
        "width": layout.width_px,
        "height": layout.height_px,
        "fps": round(clip.fps, 4),
    }


def layout_of(clip: Clip, cell_px: int) -> SheetLayout:
    """The sheet of a loop with frames of at most `cell_px`."""
    count, height, width, _ = clip.frames.shape
    return plan_sheet(count, height, width, cell_px=cell_px)


def write_sheet(clip: Clip, layout: SheetLayout, path: Path) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(to_webp(draw_sheet(clip.frames, layout)))


def to_webp(pixels: Tensor) -> bytes:
    """A picture `[H, W, 3]` in 0..1 as a WebP file without any text in it."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(pixels).numpy()).save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def data_uri(webp: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp).decode("ascii")


def asset(name: str) -> str:
    """The text of a style or script beside this file."""
    return (ASSETS / name).read_text(encoding="utf-8")


def script_json(content: Any) -> str:
    """JSON that can stand inside a `<script>` element: no text in it can end the element."""
    return json.dumps(content).replace("<", "\\u003c")


def html_page(title: str, body: str, data: dict[str, Any], scripts: tuple[str, ...]) -> str:
    """A page that needs nothing from anywhere else.

    Args:
        title, body: HTML.
        data: JSON by the id of the element that holds it.
        scripts: names of files beside this one.
    """
    held = "".join(
        f'<script type="application/json" id="{name}">{script_json(value)}</script>'
        for name, value in data.items()
    )
    code = "".join(f"<script>{asset(name)}</script>" for name in scripts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{asset('page.css')}</style></head>"
        f"<body><main>{body}</main>{held}{code}</body></html>\n"
    )
