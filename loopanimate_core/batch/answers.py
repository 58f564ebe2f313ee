"""What a ComfyUI server answers, read field by field: the one place that knows the form of its JSON.

A server may be broken, another program or hostile. Every function raises `MalformedError` for what it cannot use,
and no text of a server is shown or becomes a file's name before it was checked here.
"""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..parsing import Fields, MalformedError, plain_text

MAX_ENTRIES = 100_000  # of a queue, or of one list in an answer
MAX_FILES = 1000  # that one prompt may save
MAX_NAME = 255  # bytes of a file's name
MAX_FOLDER = 1024
MAX_REASON = 500
MAX_ID = 200

Graph = dict[str, Any]
"""A workflow in API format: node id → {"class_type", "inputs"}."""


@dataclass(frozen=True)
class ServerFile:
    """A file in a server's output folder; its name has neither a folder nor control characters.

    Raises:
        MalformedError: it has.
    """

    filename: str
    subfolder: str

    def __post_init__(self) -> None:
        name, folder = self.filename, self.subfolder
        if plain_text(name, MAX_NAME + 1) != name or plain_text(folder, MAX_FOLDER + 1) != folder:
            raise MalformedError(f"the server names a file {plain_text(name, 80)!r}")
        if not name.strip(". ") or set(name) & set("/\\") or len(name.encode()) > MAX_NAME:
            raise MalformedError(f"the server names a file {plain_text(name, 80)!r}")
        parts = folder.replace("\\", "/").split("/")
        if ".." in parts or posixpath.isabs(folder) or len(folder) > MAX_FOLDER:
            raise MalformedError(f"the server names a folder {plain_text(folder, 80)!r}")

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


def known_nodes(answer: Any) -> set[str]:
    """The node types in an answer of `/object_info`."""
    return set(Fields(answer, "the list of nodes"))


def queue_ids(answer: Any) -> tuple[set[str], set[str]]:
    """The ids of the prompts that run and of those that wait, from `/queue`."""
    queue = Fields(answer, "the queue")
    running, pending = (
        {str(entry[1])[:MAX_ID] for entry in queue.items(name, MAX_ENTRIES) if _is_job(entry)}
        for name in ("queue_running", "queue_pending")
    )
    return running, pending


def _is_job(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[1], str):
        raise MalformedError("an entry of the queue has no prompt id")
    return True


def ended(answer: Any, prompt_id: str) -> PromptStatus | None:
    """How a prompt ended, from `/history/ID`; None if it has not."""
    history = Fields(answer, "the history")
    if prompt_id not in history:
        return None
    entry = history.fields(prompt_id)
    status = entry.fields("status", {})
    if status.text("status_str", "") != "success":
        messages = status.items("messages", MAX_ENTRIES, [])
        return PromptStatus("failed", reason=failure(messages))
    return PromptStatus("done", files=saved_files(entry.fields("outputs", {})))


def saved_files(outputs: Fields) -> tuple[ServerFile, ...]:
    """Every file that the output nodes of a prompt report, under any key."""
    found: dict[ServerFile, None] = {}
    for node in outputs:
        shown = outputs.fields(node)
        for entries in shown.values.values():
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, Mapping) and entry.get("type") == "output":
                    if "filename" not in entry:
                        continue
                    file = Fields(entry, "a saved file")
                    name = file.text("filename", low=1, high=MAX_NAME)
                    found[ServerFile(name, file.text("subfolder", "", high=MAX_FOLDER))] = None
                    if len(found) > MAX_FILES:
                        raise MalformedError(f"the server reports more than {MAX_FILES} files")
    return tuple(found)


def failure(messages: Iterable[Any]) -> str:
    """Why a prompt failed, as ComfyUI's page shows it."""
    for message in messages:
        if not isinstance(message, list) or len(message) != 2:
            continue
        kind, data = message
        if kind == "execution_error" and isinstance(data, Mapping):
            said = " ".join(str(data.get("exception_message") or "").split())
            said = said or str(data.get("exception_type") or "error")
            return plain_text(f"{data.get('node_type') or 'a node'}: {said}", MAX_REASON)
        if kind == "execution_interrupted":
            return "interrupted in ComfyUI"
    return "failed without a reason"


def uploaded_name(answer: Any) -> str:
    """The name of an uploaded picture, for Load Image."""
    stored = Fields(answer, "the answer to an upload")
    folder = stored.text("subfolder", "", high=MAX_FOLDER)
    return "/".join(filter(None, (folder, stored.text("name", low=1, high=MAX_NAME))))


@dataclass(frozen=True)
class Queued:
    """The answer to a posted prompt: its id, and why some outputs were refused; empty if none was."""

    prompt_id: str
    refusal: str = ""


def queued(answer: Any, graph: Graph, prompt_id: str) -> Queued:
    """Read the answer to `/prompt`; servers of earlier versions choose the id themselves."""
    fields = Fields(answer, "the answer to a prompt")
    own = fields.text("prompt_id", prompt_id, low=1, high=MAX_ID)
    if plain_text(own, MAX_ID) != own or not set(own).isdisjoint("/?#% "):
        raise MalformedError(f"the server names a prompt {plain_text(own, 80)!r}")
    return Queued(own, refusal(answer, graph) if answer.get("node_errors") else "")


def refusal(answer: object, graph: Graph) -> str:
    """A server's reasons for refusing a workflow, in one line with the names of the nodes.

    It never fails: what cannot be read is left out.
    """
    content = answer if isinstance(answer, Mapping) else {}
    problems = content.get("node_errors")
    reasons = []
    for node_id, problem in problems.items() if isinstance(problems, Mapping) else ():
        errors = problem.get("errors") if isinstance(problem, Mapping) else None
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, Mapping):
                details = error.get("details") or error.get("message") or "no reason"
                kind = graph.get(node_id, {}).get("class_type", "node")
                reasons.append(f"{kind} ({node_id}): {details}")
    if not reasons:
        error = content.get("error") or "no reason given"
        message = error.get("message", "no reason") if isinstance(error, Mapping) else error
        reasons = [str(message)]
    return plain_text("; ".join(reasons[:20]), 2 * MAX_REASON)
