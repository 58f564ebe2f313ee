"""A small server with the part of ComfyUI's HTTP API (as in 0.3.64) that a batch uses."""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NODE_TYPES = {"LoadImage", "LoopAnimate_SaveLoop", "LoopAnimate_LoopSampler", "SaveImage"}


def mp4_of(text: str) -> bytes:
    """A file with the boxes of an MP4 and a text in one of them."""
    boxes = {b"ftyp": b"isom", b"moov": b"", b"mdat": text.encode()}
    return b"".join(struct.pack(">I4s", 8 + len(c), kind) + c for kind, c in boxes.items())


def text_of(mp4: bytes) -> str:
    """The text in a file of `mp4_of`."""
    return mp4.partition(b"mdat")[2].decode()


class ComfyStandIn:
    """Runs prompts one by one in a thread; a prompt "makes" a file that names picture and seed.

    Attributes:
        folder: holds input and output; both survive `kill` and `start`.
        posted: the graphs that were queued.
        fail_for: prompts whose uploaded picture has this in its name fail.
        die_before, die_after: the server dies before it starts, or after it saved, its n-th prompt.
        go: while cleared, no prompt starts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.made = folder, 0, 0
        self.run_s, self.fail_for, self.refuse, self.partly = 0.02, "", "", False
        self.die_before, self.die_after = -1, -1
        self.go, self._gone = threading.Event(), threading.Event()
        self.go.set()
        self._gone.set()
        self.node_types = set(NODE_TYPES)
        self.posted: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """Start with an empty queue and history, on the same port, once that port is free."""
        self._gone.wait()
        self._gone.clear()
        self.pending: list[tuple[str, dict[str, Any]]] = []
        self.running: list[tuple[str, dict[str, Any]]] = []
        self.history: dict[str, Any] = {}
        self.alive, self.lock = True, threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=self._work, daemon=True).start()

    def kill(self) -> None:
        """Stop answering at once; the running prompt is lost."""
        self.alive = False
        self.http.shutdown()
        self.http.server_close()
        self._gone.set()

    @property
    def outputs(self) -> list[str]:
        return sorted(
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("out/**/*.*")
        )

    # ------------------------------------------------------------------------------- the worker
    def _work(self) -> None:
        while self.alive:
            with self.lock:
                if self.pending:
                    self.running.append(self.pending.pop(0))
            if not self.running:
                time.sleep(0.005)
                continue
            self.go.wait()
            prompt_id, graph = self.running[0]
            if self.made == self.die_before:
                self.die_before = -1
                threading.Thread(target=self.kill).start()
                return
            time.sleep(self.run_s)
            entry = self._execute(graph)
            if self.made == self.die_after:
                self.die_after = -1
                threading.Thread(target=self.kill).start()
                return
            with self.lock:
                self.running.clear()
                self.history[prompt_id] = entry

    def _execute(self, graph: dict[str, Any]) -> dict[str, Any]:
        (picture,) = (n["inputs"] for n in graph.values() if n["class_type"] == "LoadImage")
        if self.fail_for and self.fail_for in picture["image"]:
            said = {"node_type": "LoopAnimate_LoopSampler", "exception_message": "no such\nmotion"}
            return _entry({}, "error", [["execution_error", said]])
        saver = next(n["inputs"] for n in graph.values() if "Save" in n["class_type"])
        seed = next(n["inputs"]["seed"] for n in graph.values() if "Sampler" in n["class_type"])
        prefix = saver["filename_prefix"] + f"_{saver['picture_name']}" * ("picture_name" in saver)
        folder, _, stem = prefix.rpartition("/")
        target = self.folder / "out" / folder
        target.mkdir(parents=True, exist_ok=True)
        number = 1 + len(list(target.glob(f"{stem}_*_.mp4")))
        name = f"{stem}_{number:05}_.mp4"
        (target / name).write_bytes(mp4_of(f"{picture['image']} {seed}"))
        self.made += 1
        saved = {"filename": name, "subfolder": folder, "type": "output"}
        return _entry({"9": {"images": [saved], "animated": [True]}}, "success", [])

    # ------------------------------------------------------------------------------------- HTTP
    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self, code: int, body: object = None) -> None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def do_GET(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                with server.lock:
                    if url.path == "/queue":
                        lists = [
                            [[0, i, g, {}, []] for i, g in q]
                            for q in (server.running, server.pending)
                        ]
                        self._answer(200, {"queue_running": lists[0], "queue_pending": lists[1]})
                    elif url.path.startswith("/history/"):
                        key = url.path.removeprefix("/history/")
                        entry = server.history.get(key)
                        self._answer(200, {key: entry} if entry else {})
                    elif url.path.startswith("/object_info/"):
                        name = url.path.removeprefix("/object_info/")
                        self._answer(200, {name: {}} if name in server.node_types else {})
                    elif url.path == "/view":
                        query = dict(urllib.parse.parse_qsl(url.query))
                        file = (
                            server.folder / "out" / query.get("subfolder", "") / query["filename"]
                        )
                        found = file.is_file()
                        self._answer(200 if found else 404, file.read_bytes() if found else b"")
                    else:
                        self._answer(404)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/upload/image":
                    self._answer(200, server._store(body, self.headers["Content-Type"]))
                elif self.path == "/prompt":
                    self._answer(*server._queue(json.loads(body)))
                elif self.path == "/queue":
                    gone = set(json.loads(body).get("delete", ()))
                    with server.lock:
                        server.pending = [(i, g) for i, g in server.pending if i not in gone]
                    self._answer(200, b"")
                else:
                    self._answer(200, b"")

        return Handler

    def _store(self, body: bytes, content_type: str) -> dict[str, str]:
        boundary = content_type.partition("boundary=")[2].encode()
        fields: dict[str, bytes] = {}
        file_name = ""
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            marks = dict(re.findall(r'(\w+)="([^"]*)"', head.decode()))
            fields[marks["name"]] = content[:-2]
            file_name = marks.get("filename", file_name)
        target = self.folder / "in" / fields["subfolder"].decode() / file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(fields["image"])
        subfolder = fields["subfolder"].decode()
        return {"name": file_name, "subfolder": subfolder, "type": "input"}

    def _queue(self, body: dict[str, Any]) -> tuple[int, Any]:
        problem = {"5": {"errors": [{"message": "bad", "details": self.refuse or "partly"}]}}
        if self.refuse:
            return 400, {"error": {"message": "Prompt outputs failed"}, "node_errors": problem}
        prompt_id = body["prompt_id"]
        self.posted.append(body["prompt"])
        with self.lock:
            self.pending.append((prompt_id, body["prompt"]))
        errors = problem if self.partly else {}
        return 200, {"prompt_id": prompt_id, "number": 1, "node_errors": errors}


def _entry(outputs: dict[str, Any], status: str, messages: list[Any]) -> dict[str, Any]:
    return {
        "prompt": [],
        "outputs": outputs,
        "status": {"status_str": status, "completed": status == "success", "messages": messages},
    }
