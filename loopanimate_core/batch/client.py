"""The part of ComfyUI's HTTP interface that a batch needs: upload, queue, status, download."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import LoopAnimateError

TIMEOUT_S = 30.0
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}

Graph = dict[str, Any]
"""A workflow in API format: node id → {"class_type", "inputs"}."""


class ServerGoneError(Exception):
    """The server does not answer: it stopped or restarts, or the network is down."""


class PromptRefusedError(LoopAnimateError):
    """The server cannot run the workflow; the message gives the reason."""


@dataclass(frozen=True)
class ServerFile:
    """A file in a server's output folder."""

    filename: str
    subfolder: str

    @property
    def query(self) -> str:
        fields = {"filename": self.filename, "subfolder": self.subfolder, "type": "output"}
        return "/view?" + urllib.parse.urlencode(fields)


@dataclass(frozen=True)
class PromptStatus:
    """The status of a prompt.

    Attributes:
        state: `unknown` if the server does not have the prompt, as after a restart.
        reason: why it failed.
        files: the files that its output nodes saved.
    """

    state: Literal["pending", "running", "done", "failed", "unknown"]
    reason: str = ""
    files: tuple[ServerFile, ...] = ()


class ComfyClient:
    """One running ComfyUI server."""

    def __init__(self, url: str) -> None:
        self.url = _server_url(url)
        host = urllib.parse.urlsplit(self.url).hostname
        # A proxy for the internet cannot reach local ports.
        direct = [urllib.request.ProxyHandler({})] if host in LOCAL_HOSTS else []
        self._open = urllib.request.build_opener(*direct).open
        self._client_id = uuid.uuid4().hex

    def require_nodes(self, types: set[str]) -> None:
        """Check that the server has all these node types.

        Raises:
            PromptRefusedError: some are missing; the message names them.
            ServerGoneError: the server does not answer.
        """
        missing = []
        for name in sorted(types):
            if name not in self._get("/object_info/" + urllib.parse.quote(name, safe="")):
                missing.append(name)
        if missing:
            raise PromptRefusedError(
                f"the server {self.url} does not have the nodes {', '.join(missing)}; install the"
                " extensions that they belong to"
            )

    def ping(self) -> None:
        """Return if the server answers. Raises ServerGoneError if not."""
        self._get("/queue")

    def upload(self, name: str, data: bytes, subfolder: str) -> str:
        """Upload a picture to `input/subfolder`; returns its name for Load Image."""
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
        try:
            answer = json.loads(self._read(request))
        except urllib.error.HTTPError as error:
            raise LoopAnimateError(
                f"the server {self.url} does not accept the picture ({error.code} {error.reason})"
            ) from None
        return "/".join(filter(None, (answer.get("subfolder"), answer["name"])))

    def post(self, graph: Graph, prompt_id: str) -> str:
        """Queue a workflow with the given id; returns the id that the server gave it.

        Raises:
            PromptRefusedError: the workflow, or one of its outputs, is not valid on this server.
            ServerGoneError: the server does not answer; it may have queued the workflow anyway.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self._client_id}
        try:
            answer = self._post("/prompt", body)
        except urllib.error.HTTPError as error:
            raise PromptRefusedError(self._refusal(graph, _parsed(error))) from None
        queued = answer.get("prompt_id", prompt_id)
        if answer.get("node_errors"):  # the server would run only the valid outputs
            self.cancel(queued)
            raise PromptRefusedError(self._refusal(graph, answer))
        return queued

    def status(self, prompt_id: str) -> PromptStatus:
        """The status of a prompt. Raises ServerGoneError."""
        if ended := self._ended(prompt_id):
            return ended
        queue = self._get("/queue")
        if any(entry[1] == prompt_id for entry in queue["queue_running"]):
            return PromptStatus("running")
        if any(entry[1] == prompt_id for entry in queue["queue_pending"]):
            return PromptStatus("pending")
        # It may have ended between the two requests; then it is in the history now.
        return self._ended(prompt_id) or PromptStatus("unknown")

    def cancel(self, prompt_id: str) -> None:
        """Remove a prompt from the queue, and stop it if it runs."""
        self.withdraw(prompt_id)
        if self.status(prompt_id).state == "running":
            self._post("/interrupt", {"prompt_id": prompt_id})

    def withdraw(self, prompt_id: str) -> None:
        """Remove a prompt from the queue; a running prompt goes on."""
        self._post("/queue", {"delete": [prompt_id]})

    def fetch(self, file: ServerFile) -> bytes:
        """Download a file.

        Raises:
            LoopAnimateError: the server does not have the file.
        """
        try:
            return self._read(urllib.request.Request(self.url + file.query))
        except urllib.error.HTTPError as error:
            raise LoopAnimateError(
                f"the server {self.url} does not send the file {file.filename} ({error.code})"
            ) from None

    def has_file(self, file: ServerFile) -> bool:
        """Whether a file is in the server's output folder."""
        request = urllib.request.Request(self.url + file.query, method="HEAD")
        try:
            self._read(request)
        except urllib.error.HTTPError:
            return False
        return True

    # ------------------------------------------------------------------------------------------
    def _ended(self, prompt_id: str) -> PromptStatus | None:
        entry = self._get(f"/history/{prompt_id}").get(prompt_id)
        if entry is None:
            return None
        status = entry.get("status") or {}
        if status.get("status_str") == "success":
            return PromptStatus("done", files=_files_of(entry.get("outputs") or {}))
        return PromptStatus("failed", reason=_failure(status.get("messages") or ()))

    def _get(self, path: str) -> Any:
        try:
            return self._parse(path, self._read(urllib.request.Request(self.url + path)))
        except urllib.error.HTTPError as error:
            raise LoopAnimateError(
                f"{self.url} is not a ComfyUI server: {path} gives {error}"
            ) from None

    def _post(self, path: str, body: object) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        content = self._read(request)
        return self._parse(path, content) if content else None

    def _parse(self, path: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError:
            raise LoopAnimateError(
                f"{self.url} is not a ComfyUI server: {path} is not JSON"
            ) from None

    def _read(self, request: urllib.request.Request) -> bytes:
        try:
            with self._open(request, timeout=TIMEOUT_S) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code in (502, 503, 504):  # from a proxy while the server restarts
                raise ServerGoneError(f"{self.url}: {error}") from error
            raise
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise ServerGoneError(f"{self.url}: {getattr(error, 'reason', error)}") from error

    def _refusal(self, graph: Graph, answer: dict[str, Any]) -> str:
        """The server's reasons in one sentence, with the names of the nodes."""
        reasons = []
        for node_id, problem in (answer.get("node_errors") or {}).items():
            node = graph.get(node_id, {})
            for error in problem.get("errors", ()):
                details = error.get("details") or error.get("message")
                reasons.append(f"{node.get('class_type', 'node')} ({node_id}): {details}")
        if not reasons:
            error = answer.get("error") or "no reason given"
            reasons = [error.get("message", "no reason") if isinstance(error, dict) else str(error)]
        return f"the server {self.url} rejects the workflow: {'; '.join(reasons)}"


def _server_url(text: str) -> str:
    """The full URL of `192.168.0.7:8188` or `http://host:8188/`, without a slash at the end."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise LoopAnimateError(f"a server must be a URL like http://127.0.0.1:8188, got {text!r}")
    return url.split("?")[0].split("#")[0].rstrip("/")


def _parsed(error: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        answer = json.loads(error.read())
    except (ValueError, OSError):
        answer = None
    return answer if isinstance(answer, dict) else {"error": f"{error.code} {error.reason}"}


def _files_of(outputs: dict[str, Any]) -> tuple[ServerFile, ...]:
    """Every saved file that the output nodes report, under any key."""
    found: dict[ServerFile, None] = {}
    for shown in outputs.values():
        for entries in shown.values():
            for entry in entries if isinstance(entries, list) else ():
                if (
                    isinstance(entry, dict)
                    and entry.get("type") == "output"
                    and "filename" in entry
                ):
                    found[ServerFile(entry["filename"], entry.get("subfolder", ""))] = None
    return tuple(found)


def _failure(messages: Any) -> str:
    """Why a prompt failed, as ComfyUI's page shows it."""
    for kind, data in messages:
        if kind == "execution_error":
            said = " ".join(str(data.get("exception_message", "")).split())
            return (
                f"{data.get('node_type', 'a node')}: {said or data.get('exception_type', 'error')}"
            )
        if kind == "execution_interrupted":
            return "interrupted in ComfyUI"
    return "failed without a reason"
