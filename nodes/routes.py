"""What the page asks the server for, beside ComfyUI's own routes."""

from __future__ import annotations

import sys
from typing import Any

from loopanimate_core.errors import LoopAnimateError

from .load_picture_from_folder import pictures_of

PICTURES = "/loopanimate/pictures"


def add_routes() -> None:
    """Add our routes to ComfyUI's server, if there is one."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.routes.get(PICTURES)(_pictures)


async def _pictures(request: Any) -> Any:
    """`{"names": […]}`, the pictures of a folder in the order of Load Picture From Folder; or `{"error": "…"}`."""
    from aiohttp import web

    try:
        names = [path.name for path in pictures_of(request.query.get("folder", ""))]
    except LoopAnimateError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({"names": names})
