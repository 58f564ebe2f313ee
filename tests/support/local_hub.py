"""A server that speaks the part of the Hugging Face hub's protocol that downloads use, on this computer alone."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from loopanimate_core.fetch import Recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has, and how it misbehaves.

    Attributes:
        files: contents by repository and file.
        gated: repositories that ask for a consent.
        break_after: bytes of a body after which the connection is closed; None never.
        requests: method, file and Range header of each request.
    """

    files: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    break_after: int | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def gets(self) -> list[tuple[str, str | None]]:
        """File and Range header of each download."""
        return [(name, bytes_) for method, name, bytes_ in self.requests if method == "GET"]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port, whose address is then `hub.url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, *, body: bool) -> None:
            repository, _, rest = unquote(self.path).lstrip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            hub.requests.append((self.command, name, self.headers.get("Range")))
            if repository in hub.gated:
                return self.refuse(403, "GatedRepo")
            if repository not in hub.files:
                return self.refuse(401, "RepoNotFound")
            if name not in hub.files[repository]:
                return self.refuse(404, "EntryNotFound")
            content = hub.files[repository][name]
            first = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            part = content[first:] if body else content
            self.send_response(206 if first else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", revision if len(revision) == 40 else COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            if first:
                whole = len(content)
                self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
            self.end_headers()
            if not body:
                return None
            if hub.break_after is not None and len(part) > hub.break_after:
                self.wfile.write(part[: hub.break_after])
                self.wfile.flush()
                self.close_connection = True
                return None
            self.wfile.write(part)
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def served(recipe: Recipe, hub: Hub) -> Recipe:
    """The recipe with the SHA-256 of what the hub serves, and sizes that fit on any disk."""
    files = {
        role: dataclasses.replace(
            file,
            sha256=hashlib.sha256(hub.files[file.repository][file.file]).hexdigest(),
            size_mb=1,
        )
        for role, file in recipe.files.items()
    }
    return dataclasses.replace(recipe, files=files)
