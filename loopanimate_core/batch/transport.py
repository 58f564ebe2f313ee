"""HTTP requests to one server with limits on everything: where they go, how much comes back and how long it takes."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from ..errors import LoopAnimateError

SILENCE_S = 30.0
"""The longest time without a byte."""
ANSWER_S = 60.0
"""The longest time for an answer, and for the first byte of a file."""
SLOWEST_BYTES_PER_S = 20_000
"""A file may take as much longer as it would at this speed."""
MAX_ANSWER_BYTES = 64 * 2**20
MAX_FILE_BYTES = 4 * 2**30
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_PIECE_BYTES = 1 << 20


class ServerGoneError(Exception):
    """The server does not answer: it stopped or restarts, or the network is down.

    `kind` says which of the client's requests had no answer.
    """

    kind = ""


class CutShortError(ServerGoneError):
    """The server sent a part of what it announced, or too slowly."""


class Transport:
    """Sends requests to the server at `url`, and to no other place.

    `url` has no user and password: they go into a header, so that no message shows them.
    """

    def __init__(self, url: str) -> None:
        self.url, self._credentials = split_url(url)
        host = urllib.parse.urlsplit(self.url).hostname
        # A proxy for the internet cannot reach local ports.
        direct: list[Any] = [urllib.request.ProxyHandler({})] if host in LOCAL_HOSTS else []
        self._open = urllib.request.build_opener(_Http, _Https, _SameServer(self.url), *direct).open

    def read(self, request: urllib.request.Request, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The body of the answer.

        Raises:
            urllib.error.HTTPError: the server answers with an error, other than "not available".
            ServerGoneError: it does not answer.
            CutShortError: the body is incomplete, too long or too slow.
        """
        return b"".join(self.pieces(request, max_bytes))

    def pieces(
        self, request: urllib.request.Request, max_bytes: int = MAX_FILE_BYTES
    ) -> Iterator[bytes]:
        """The body of the answer in pieces of at most 1 MiB. Raises as `read` does."""
        for name, value in self._credentials.items():
            request.add_unredirected_header(name, value)
        with _watched(request) as watch:
            try:
                with self._open(request, timeout=SILENCE_S) as answer:
                    yield from _body(answer, watch, max_bytes)
            except urllib.error.HTTPError as error:
                if error.code in (502, 503, 504):  # from a proxy while the server restarts
                    error.close()
                    raise ServerGoneError(f"{self.url}: {error}") from None
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                if watch.expired:
                    raise CutShortError(f"{self.url}: the answer takes too long") from None
                if isinstance(error, http.client.IncompleteRead):
                    raise CutShortError(f"{self.url}: the answer is cut short") from None
                raise ServerGoneError(f"{self.url}: {getattr(error, 'reason', error)}") from None


def _body(answer: Any, watch: _Watch, max_bytes: int) -> Iterator[bytes]:
    announced, received, start = answer.length, 0, time.monotonic()
    while piece := answer.read1(_PIECE_BYTES):
        received += len(piece)
        if received > max_bytes:
            raise CutShortError(f"the answer has more than {max_bytes:,} bytes")
        watch.deadline = start + ANSWER_S + received / SLOWEST_BYTES_PER_S
        yield piece
    if watch.expired or (announced is not None and received < announced):
        raise http.client.IncompleteRead(b"", announced)


class _Watch:
    """Closes the connection of a request at a deadline, whatever its thread is waiting for."""

    def __init__(self) -> None:
        self.deadline = time.monotonic() + ANSWER_S
        self.expired, self.done = False, threading.Event()
        self.sockets: list[socket.socket] = []

    def run(self) -> None:
        while not self.done.wait(max(0.05, min(1.0, self.deadline - time.monotonic()))):
            if time.monotonic() > self.deadline:
                self.expired = True
                for connection in self.sockets:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                return


@contextlib.contextmanager
def _watched(request: urllib.request.Request) -> Iterator[_Watch]:
    watch = _Watch()
    request.watch = watch  # type: ignore[attr-defined]
    threading.Thread(target=watch.run, daemon=True).start()
    try:
        yield watch
    finally:
        watch.done.set()


class _Watchable:
    """A connection that tells the watch of its request about its socket."""

    sock: Any

    def __init__(self, *arguments: Any, watch: _Watch, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._watch.sockets.append(self.sock)


class _PlainConnection(_Watchable, http.client.HTTPConnection):
    pass


class _SecureConnection(_Watchable, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        connection: Any = functools.partial(_PlainConnection, watch=req.watch)
        return self.do_open(connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: Any) -> Any:
        connection: Any = functools.partial(_SecureConnection, watch=req.watch)
        return self.do_open(connection, req)


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirects on the server itself; one that leads away would send pictures and passwords along."""

    def __init__(self, url: str) -> None:
        self._home = _origin(url)

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if _origin(newurl) != self._home:
            raise urllib.error.URLError("it redirects to another server, which is not followed")
        followed = super().redirect_request(req, fp, code, msg, headers, newurl)
        if followed is not None:
            followed.watch = req.watch  # type: ignore[attr-defined]
        return followed


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", None, None)
    return (parts.scheme, parts.hostname, port)


def split_url(text: str) -> tuple[str, dict[str, str]]:
    """The URL of `192.168.0.7:8188` or `http://user:password@host:8188/`, and the headers for its password.

    Raises:
        LoopAnimateError: it is no URL of a server.
    """
    import base64

    url = text if "://" in text else f"http://{text}"
    secret = r"…@" if "@" in text else ""
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        valid = valid and text.isprintable() and " " not in text
        place = parts.netloc.rpartition("@")[2]
    except ValueError:
        valid, place, parts = False, "", None
    if not valid or parts is None:
        shown = secret + text.rpartition("@")[2]
        raise LoopAnimateError(f"a server must be a URL like http://127.0.0.1:8188, got {shown!r}")
    headers = {}
    if parts.username is not None:
        user, password = map(urllib.parse.unquote, (parts.username, parts.password or ""))
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    return f"{parts.scheme}://{place}{parts.path}".rstrip("/"), headers
