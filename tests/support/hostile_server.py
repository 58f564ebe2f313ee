"""A ComfyUI server that misbehaves in one way: broken JSON, wrong types, endless bodies, names that lead elsewhere."""

from __future__ import annotations

import struct
import time
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from batch_server import ComfyStandIn, mp4_of

ROUTES = ("/object_info", "/queue", "/history", "/upload", "/prompt", "/view", "HEAD /view")
ESCAPE = "\x1b]0;owned\x07\x1b[31m"

BODIES: dict[str, bytes] = {
    "empty": b"",
    "html": b"<html><body>nginx</body></html>",
    "null": b"null",
    "number": b"3",
    "text": b'"ok"',
    "list": b"[[1], 2]",
    "not UTF-8": b'{"\xff": 1}',
    "NaN": b'{"queue_running": NaN}',
    "half a character": b'{"\\ud800": "\\ud800", "name": "\\ud800", "prompt_id": "\\ud800"}',
    "deep": b'{"a":' * 50_000,
    "long number": b'{"number": ' + b"9" * 6000 + b"}",
}
"""Answers with the code 200 that are not what was asked for."""

CODES = (400, 401, 404, 500, 503)

ANSWERS: dict[str, Callable[[str], Any]] = {
    "queue of text": lambda key: {"queue_running": "x", "queue_pending": "y"},
    "queue of numbers": lambda key: {"queue_running": [1], "queue_pending": [[2]]},
    "queue without lists": lambda key: {},
    "history of text": lambda key: {key: "done"},
    "history without outputs": lambda key: {key: {"status": {"status_str": "success"}}},
    "history with null outputs": lambda key: _history(key, None),
    "outputs of text": lambda key: _history(key, "x"),
    "outputs of lists": lambda key: _history(key, {"9": [1]}),
    "files of text": lambda key: _history(key, {"9": {"images": ["x", None, 3]}}),
    "file without name": lambda key: _history(key, {"9": {"images": [{"type": "output"}]}}),
    "name is a number": lambda key: _saved(key, 7),
    "name leads up": lambda key: _saved(key, "../../evil.mp4"),
    "name is absolute": lambda key: _saved(key, "/tmp/evil.mp4"),
    "name with a backslash": lambda key: _saved(key, "..\\evil.mp4"),
    "name with controls": lambda key: _saved(key, f"a{ESCAPE}.mp4"),
    "name too long": lambda key: _saved(key, "a" * 5000 + ".mp4"),
    "name of dots": lambda key: _saved(key, ".."),
    "folder leads up": lambda key: _saved(key, "a.mp4", "../.."),
    "folder is a list": lambda key: _saved(key, "a.mp4", ["x"]),
    "suffix of a program": lambda key: _saved(key, "loop.sh"),
    "suffix of a starter": lambda key: _saved(key, "loop.desktop"),
    "no suffix": lambda key: _saved(key, "loop"),
    "2000 files": lambda key: _history(
        key, {"9": {"images": [_file(f"{number}.mp4") for number in range(2000)]}}
    ),
    "status is a list": lambda key: {key: {"status": [1], "outputs": {}}},
    "messages of text": lambda key: _failed(key, "boom"),
    "messages of numbers": lambda key: _failed(key, [1, None, ["execution_error"]]),
    "message without text": lambda key: _failed(key, [["execution_error", None]]),
    "message with controls": lambda key: _failed(
        key, [["execution_error", {"node_type": ESCAPE, "exception_message": ESCAPE * 100}]]
    ),
    "message of a megabyte": lambda key: _failed(
        key, [["execution_error", {"exception_message": "x" * 2**20}]]
    ),
}
"""Answers to `/queue` and `/history` with wrong contents; the argument is the prompt's id."""

PROMPTS: dict[str, Any] = {
    "id is a number": {"prompt_id": 3},
    "id is a path": {"prompt_id": "../../queue"},
    "id with controls": {"prompt_id": ESCAPE},
    "errors of text": {"prompt_id": "x", "node_errors": "bad"},
    "errors of lists": {"prompt_id": "x", "node_errors": {"5": [1]}},
    "errors with controls": {"node_errors": {"5": {"errors": [{"details": ESCAPE}]}}},
    "errors of numbers": {"node_errors": {"5": {"errors": 7}}},
}
"""Answers to `/prompt`."""

UPLOADS: dict[str, Any] = {
    "no name": {},
    "name is a list": {"name": [1]},
    "folder is a number": {"name": "x", "subfolder": 3},
}
"""Answers to `/upload/image`."""

VIEWS: dict[str, bytes] = {
    "empty": b"",
    "HTML": b"<html>login</html>",
    "the start of an MP4": mp4_of("x")[:20],
    "a box that is too long": struct.pack(">I4s", 2**31, b"ftyp"),
    "a box of no length": struct.pack(">I4s", 3, b"ftyp") * 4,
    "a program": b"#!/bin/sh\nrm -rf /\n",
}
"""Bodies of `/view`."""

WAYS: tuple[tuple[str, str], ...] = (
    *((route, f"body {name}") for route in ROUTES[:5] for name in BODIES),
    *((route, f"code {code}") for route in ROUTES for code in CODES),
    *((route, way) for route in ROUTES for way in ("redirect", "cut", "endless", "drip", "drop")),
    *(("/queue" if name.startswith("queue") else "/history", f"answer {name}") for name in ANSWERS),
    *(("/prompt", f"prompt {name}") for name in PROMPTS),
    *(("/upload", f"upload {name}") for name in UPLOADS),
    *(("/view", f"view {name}") for name in VIEWS),
    ("/history", "never"),
    ("/history", "stuck"),
    ("/prompt", "forgets"),
)
"""Every way: the route that misbehaves, and how."""


class HostileServer(ComfyStandIn):
    """`way` is one of `WAYS`. `elsewhere` counts requests at the address that redirects lead to."""

    def __init__(self, folder: Path, route: str = "", way: str = "") -> None:
        self.route, self.way, self.elsewhere = route, way, 0
        self.accepted: list[tuple[str, Any]] = []
        super().__init__(folder)

    def _queue(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.way == "stuck":
            self.accepted.append((body["prompt_id"], {}))
            return 200, {"prompt_id": body["prompt_id"], "node_errors": {}}
        return super()._queue(body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self
        usual: Any = super()._handler()

        class Handler(usual):
            def do_GET(self) -> None:
                self._misbehave(super().do_GET)

            def do_HEAD(self) -> None:
                self._misbehave(super().do_GET)

            def do_POST(self) -> None:
                self._misbehave(super().do_POST)

            def _misbehave(self, usually: Callable[[], None]) -> None:
                path = urllib.parse.urlsplit(self.path).path
                if path.startswith("/elsewhere"):
                    server.elsewhere += 1
                name = ("HEAD " if self.command == "HEAD" else "") + "/" + path.split("/")[1]
                if server.way == "stuck" and name == "/queue":
                    jobs = [[0, key, graph, {}, []] for key, graph in server.accepted]
                    self._answer(200, {"queue_running": jobs, "queue_pending": []})
                    return
                if name != server.route:
                    usually()
                    return
                if self.command == "POST":
                    self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    self._do(server.way, path)
                except OSError:  # the client has had enough
                    self.close_connection = True

            def _do(self, way: str, path: str) -> None:
                kind, _, name = way.partition(" ")
                if kind == "code":
                    self._answer(int(name), f"{ESCAPE}no".encode())
                elif kind == "body":
                    self._answer(200, BODIES[name])
                elif kind == "answer":
                    self._answer(200, ANSWERS[name](path.rpartition("/")[2]))
                elif kind == "prompt":
                    self._answer(200, PROMPTS[name])
                elif kind == "upload":
                    self._answer(200, UPLOADS[name])
                elif kind == "view":
                    self._answer(200, VIEWS[name])
                elif kind in ("never", "stuck"):
                    self._answer(200, {})
                elif kind == "forgets":
                    self._answer(200, {"prompt_id": "gone", "node_errors": {}})
                elif kind == "redirect":
                    self.send_response(302)
                    self.send_header("Location", f"http://localhost:{server.port}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif kind == "drop":
                    self.close_connection = True
                else:
                    self._long(kind)

            def _long(self, kind: str) -> None:
                """A body that is cut short, never ends or comes byte by byte."""
                self.send_response(200)
                if kind != "endless":
                    self.send_header("Content-Length", "100000")
                self.end_headers()
                if kind == "cut":
                    self.wfile.write(b"{" * 1000)
                    self.close_connection = True
                    return
                for _ in range(20_000):
                    self.wfile.write(b"[" * (1 << 16) if kind == "endless" else b"[")
                    if kind == "drip":
                        time.sleep(0.02)
                    if not server.alive:
                        return

        return Handler


def _file(name: Any, folder: Any = "") -> dict[str, Any]:
    return {"filename": name, "subfolder": folder, "type": "output"}


def _history(key: str, outputs: Any) -> dict[str, Any]:
    return {key: {"outputs": outputs, "status": {"status_str": "success", "messages": []}}}


def _saved(key: str, name: Any, folder: Any = "") -> dict[str, Any]:
    return _history(key, {"9": {"images": [_file(name, folder)]}})


def _failed(key: str, messages: Any) -> dict[str, Any]:
    return {key: {"outputs": {}, "status": {"status_str": "error", "messages": messages}}}
