"""The part of ComfyUI's HTTP interface that a batch needs: upload, queue, status, download."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import LoopAnimateError
from ..parsing import MalformedError, parse_json, plain_text
from . import answers
from .answers import Graph, PromptStatus, ServerFile
from .transport import CutShortError, ServerGoneError, Transport

__all__ = [
    "BrokenServerError",
    "ComfyClient",
    "CutShortError",
    "Graph",
    "PromptRefusedError",
    "PromptStatus",
    "ServerFile",
    "ServerGoneError",
]


class BrokenServerError(ServerGoneError, LoopAnimateError):
    """The server answers, but not as ComfyUI does: another program, or one that is broken or restarts."""


class PromptRefusedError(LoopAnimateError):
    """The server cannot run the workflow; the message gives the reason."""


class ComfyClient:
    """One running ComfyUI server. Nothing that it sends is trusted: see `answers` and `transport`.

    Args:
        url: `http://host:8188`; a user and password in it are sent and never shown.
    """

    def __init__(self, url: str) -> None:
        self._transport = Transport(url)
        self.url = self._transport.url
        self._client_id = uuid.uuid4().hex
        self._answered_s: dict[str, float] = {}

    def answered_s(self, kind: str) -> float:
        """When (of `time.monotonic`) a kind of request, `ServerGoneError.kind`, last got a good answer."""
        return self._answered_s.get(kind, 0.0)

    def require_nodes(self, types: set[str]) -> None:
        """Check that the server has all these node types.

        Raises:
            PromptRefusedError: some are missing; the message names them.
            ServerGoneError: the server does not answer.
        """
        missing = []
        for name in sorted(types):
            path = "/object_info/" + urllib.parse.quote(name, safe="")
            if name not in self._get(path, answers.known_nodes):
                missing.append(name)
        if missing:
            raise PromptRefusedError(
                f"the server {self.url} does not have the nodes {', '.join(missing)}; install the"
                " extensions that they belong to"
            )

    def ping(self) -> None:
        """Return if the server answers. Raises ServerGoneError if not."""
        self._get("/queue", answers.queue_ids)

    def upload(self, name: str, data: bytes, subfolder: str) -> str:
        """Upload a picture to `input/subfolder`; returns its name for Load Image.

        Raises:
            LoopAnimateError: the server does not accept the picture.
            ServerGoneError: it does not answer.
        """
        boundary = uuid.uuid4().hex
        fields = {"subfolder": subfolder, "type": "input", "overwrite": "true"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = "".join(parts).encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(self.url + "/upload/image", body, headers)
        with self._asking("/upload"):
            try:
                content = self._transport.read(request)
            except urllib.error.HTTPError as error:
                raise LoopAnimateError(
                    f"the server {self.url} does not accept the picture ({_reason(error)})"
                ) from None
            return self._understood("/upload/image", content, answers.uploaded_name)

    def post(self, graph: Graph, prompt_id: str) -> str:
        """Queue a workflow with the given id; returns the id that the server gave it.

        Raises:
            PromptRefusedError: the workflow, or one of its outputs, is not valid on this server.
            ServerGoneError: the server does not answer; it may have queued the workflow anyway.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self._client_id}
        with self._asking("/prompt"):
            try:
                content = self._send("/prompt", body)
            except urllib.error.HTTPError as error:
                raise self._refused(answers.refusal(_parsed(error), graph)) from None
            queued = self._understood("/prompt", content, answers.queued, graph, prompt_id)
        if queued.refusal:  # the server would run only the valid outputs
            self.cancel(queued.prompt_id)
            raise self._refused(queued.refusal)
        return queued.prompt_id

    def status(self, prompt_id: str) -> PromptStatus:
        """The status of a prompt. Raises ServerGoneError."""
        if ended := self._ended(prompt_id):
            return ended
        running, pending = self._get("/queue", answers.queue_ids)
        if prompt_id in running:
            return PromptStatus("running")
        if prompt_id in pending:
            return PromptStatus("pending")
        # It may have ended between the two requests; then it is in the history now.
        return self._ended(prompt_id) or PromptStatus("unknown")

    def cancel(self, prompt_id: str) -> None:
        """Remove a prompt from the queue, and stop it if it runs."""
        self.withdraw(prompt_id)
        if self.status(prompt_id).state == "running":
            self._order("/interrupt", {"prompt_id": prompt_id})

    def withdraw(self, prompt_id: str) -> None:
        """Remove a prompt from the queue; a running prompt goes on."""
        self._order("/queue", {"delete": [prompt_id]})

    def fetch(self, file: ServerFile) -> Iterator[bytes]:
        """Download a file in pieces.

        Raises:
            LoopAnimateError: the server does not have the file.
            CutShortError: the file is incomplete, too long or too slow.
            ServerGoneError: the server does not answer.
        """
        with self._asking("/view"):
            try:
                yield from self._transport.pieces(urllib.request.Request(self.url + file.query))
            except urllib.error.HTTPError as error:
                raise LoopAnimateError(
                    f"the server {self.url} does not send the file {file.filename} ({error.code})"
                ) from None

    def has_file(self, file: ServerFile) -> bool:
        """Whether a file is in the server's output folder."""
        request = urllib.request.Request(self.url + file.query, method="HEAD")
        with self._asking("HEAD /view"):
            try:
                self._transport.read(request)
            except urllib.error.HTTPError:
                return False
        return True

    # ------------------------------------------------------------------------------------------
    @contextmanager
    def _asking(self, kind: str) -> Iterator[None]:
        """One request: notes when it was answered, or in the error what was asked."""
        try:
            yield
        except ServerGoneError as error:
            error.kind = kind
            raise
        self._answered_s[kind] = time.monotonic()

    def _ended(self, prompt_id: str) -> PromptStatus | None:
        return self._get(f"/history/{prompt_id}", answers.ended, prompt_id)

    def _get(self, path: str, reader: Callable[..., Any], *more: Any) -> Any:
        with self._asking("/" + path.split("/")[1]):
            try:
                content = self._transport.read(urllib.request.Request(self.url + path))
            except urllib.error.HTTPError as error:
                raise self._broken(f"{path} gives {_reason(error)}") from None
            return self._understood(path, content, reader, *more)

    def _order(self, path: str, body: object) -> None:
        """Post something whose answer does not matter."""
        with self._asking("POST " + path):
            try:
                self._send(path, body)
            except urllib.error.HTTPError as error:
                raise self._broken(f"{path} gives {_reason(error)}") from None

    def _send(self, path: str, body: object) -> bytes:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        return self._transport.read(request)

    def _understood(self, path: str, content: bytes, reader: Callable[..., Any], *more: Any) -> Any:
        try:
            return reader(parse_json(content, path), *more)
        except MalformedError as error:
            raise self._broken(str(error)) from None

    def _broken(self, why: str) -> BrokenServerError:
        return BrokenServerError(f"{self.url} is not a ComfyUI server: {why}")

    def _refused(self, why: str) -> PromptRefusedError:
        return PromptRefusedError(f"the server {self.url} rejects the workflow: {why}")


def _reason(error: urllib.error.HTTPError) -> str:
    return plain_text(f"{error.code} {error.reason}", 100)


def _parsed(error: urllib.error.HTTPError) -> Any:
    try:
        answer = parse_json(error.read(1 << 20), "the answer")
    except (MalformedError, OSError, ValueError):
        answer = None
    return answer if isinstance(answer, dict) else {"error": _reason(error)}
