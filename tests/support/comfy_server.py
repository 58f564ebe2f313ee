"""A real ComfyUI in its own process, used over HTTP as its web page does. Standard library only."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waiting import HANGS_S

PACK = Path(__file__).resolve().parent.parent.parent
"""The folder that users put into custom_nodes."""


class PromptError(Exception):
    """ComfyUI refused or failed a prompt; the message is what the page would show."""


def find_comfyui() -> Path | None:
    """The ComfyUI to test with: $COMFYUI_PATH, then ~/comfy/ComfyUI."""
    for place in (os.environ.get("COMFYUI_PATH"), "~/comfy/ComfyUI"):
        if place and (root := Path(place).expanduser()).joinpath("main.py").is_file():
            return root
    return None


def python_of(root: Path) -> str:
    """ComfyUI's own Python: $COMFYUI_PYTHON, then `<root>/.venv`, then this one."""
    own = root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return os.environ.get("COMFYUI_PYTHON") or (str(own) if own.exists() else sys.executable)


def install_pack(base_dir: Path, name: str = "LoopAnimate") -> Path:
    """Put this repository into `base_dir/custom_nodes`, as a link."""
    target = base_dir / "custom_nodes" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(PACK, target_is_directory=True)
    return target


def front_end() -> Path | None:
    """The installed comfyui-frontend-package, which the extra `page` brings; ComfyUI has an older one of its own."""
    spec = importlib.util.find_spec("comfyui_frontend_package")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "static"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer:
    """A running ComfyUI server with this pack installed.

    Attributes:
        base_dir: its input, output, temp, models and custom_nodes folders.
        log_path: file with the output of the server.
    """

    def __init__(
        self,
        root: Path,
        base_dir: Path,
        port: int | None = None,
        extra_args: Sequence[str] = (),
        env: dict[str, str] | None = None,
        python: str | None = None,
    ) -> None:
        self.root, self.base_dir = root, base_dir
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = base_dir / "server.log"
        for folder in ("input", "output", "temp", "user", "models"):
            (base_dir / folder).mkdir(parents=True, exist_ok=True)
        install_pack(base_dir)
        command = [
            python or python_of(root),
            "main.py",
            "--cpu",
            "--disable-api-nodes",
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--base-directory",
            str(base_dir),
            "--database-url",
            f"sqlite:///{base_dir}/user/comfy.db",
            *extra_args,
        ]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment |= {"HF_HUB_OFFLINE": "1", **(env or {})}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @classmethod
    def start(
        cls,
        root: Path,
        base_dir: Path,
        port: int | None = None,
        extra_args: Sequence[str] = (),
        **options: Any,
    ) -> ComfyServer:
        """Start a server and wait until it answers; raises with the end of its log if it does not."""
        server = cls(root, base_dir, port, extra_args, **options)
        try:
            server._wait_until_up()
        except BaseException:
            server.kill()
            raise
        return server

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + HANGS_S
        while True:
            try:
                self.get("/system_stats")
                break
            except (urllib.error.URLError, ConnectionError):
                stopped = self.process.poll() is not None
                if stopped or time.monotonic() > deadline:
                    state = "stopped" if stopped else "does not answer"
                    raise RuntimeError(f"ComfyUI {state}:\n{self.log()[-4000:]}") from None
                time.sleep(0.25)
        if "IMPORT FAILED" in self.log():
            raise RuntimeError(f"the pack was not imported:\n{self.log()[-4000:]}")

    def log(self) -> str:
        """Everything the server has printed."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Stop the server with Ctrl-C; kill it if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill the server without warning, like a power cut."""
        self.process.kill()
        self.process.wait()

    # ------------------------------------------------------------------------------------- HTTP
    def get(self, path: str) -> Any:
        """GET; returns parsed JSON, or bytes if the answer is not JSON."""
        return self._request(urllib.request.Request(self.url + path))

    def post(self, path: str, json_body: Any) -> Any:
        """POST a JSON body; returns the same types as `get`."""
        body = json.dumps(json_body).encode()
        headers = {"Content-Type": "application/json"}
        return self._request(urllib.request.Request(self.url + path, body, headers))

    def _request(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
            content = answer.read()
            is_json = "json" in (answer.headers.get("Content-Type") or "")
            return json.loads(content) if is_json and content else content

    def view(self, file: dict[str, str]) -> bytes:
        """The bytes of a file that is listed in the ui output of a node."""
        return self.get("/view?" + urllib.parse.urlencode(file))

    # ---------------------------------------------------------------------------------- prompts
    def prompt(
        self, graph: dict[str, Any], workflow: Any = None, client_id: str | None = None
    ) -> str:
        """Queue a graph in API format and return its id; `workflow` is the page's form of it."""
        body: dict[str, Any] = {"prompt": graph, "client_id": client_id or uuid.uuid4().hex}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as error:
            raise PromptError(error.read().decode()) from None
        if answer["node_errors"]:
            raise PromptError(json.dumps(answer["node_errors"]))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout_s: float = HANGS_S) -> dict[str, Any]:
        """Wait until a prompt has succeeded or failed, and return its entry in the history."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped:\n{self.log()[-4000:]}")
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                return entry
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} did not finish within {timeout_s} s")

    def run(
        self, graph: dict[str, Any], timeout_s: float = HANGS_S, workflow: Any = None
    ) -> dict[str, Any]:
        """Run a graph to its end.

        Raises:
            PromptError: it was refused, a node failed, or it was interrupted.
        """
        entry = self.wait(self.prompt(graph, workflow), timeout_s)
        if entry["status"]["status_str"] != "success":
            raise PromptError(error_of(entry))
        return entry


def error_of(entry: dict[str, Any]) -> str:
    """The error that the page would show for a failed history entry."""
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_error":
            return f"{data['node_type']}: {data['exception_message']}".strip()
        if kind == "execution_interrupted":
            return "interrupted"
    return "no error"
