"""Just enough of a WebSocket client to listen to ComfyUI. Standard library only."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from waiting import HANGS_S

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Listener:
    """What the server tells one client: JSON messages as dicts, previews as bytes.

    `with Listener(server.port) as events: server.prompt(graph, client_id=events.client_id)`.
    """

    def __init__(self, port: int, client_id: str = "listener") -> None:
        self.client_id = client_id
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=HANGS_S)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._socket.recv(4096)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.decode())

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def messages(self, timeout_s: float = HANGS_S) -> Iterator[dict[str, Any] | bytes]:
        """Messages as they come, for at most `timeout_s` in total."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            kind, content = self._message()
            if kind == CLOSE:
                return
            yield json.loads(content) if kind == TEXT else content

    def until_done(
        self, prompt_id: str, timeout_s: float = HANGS_S
    ) -> list[dict[str, Any] | bytes]:
        """Everything up to the end of a prompt, good or bad."""
        heard = []
        for message in self.messages(timeout_s):
            heard.append(message)
            if isinstance(message, dict) and message["type"].startswith("execution_"):
                over = message["type"].removeprefix("execution_") in (
                    "success",
                    "error",
                    "interrupted",
                )
                if over and message["data"]["prompt_id"] == prompt_id:
                    return heard
        raise TimeoutError(f"prompt {prompt_id} runs for over {timeout_s} s")

    def _message(self) -> tuple[int, bytes]:
        kind, content = 0, b""
        while True:
            last, opcode, payload = self._frame()
            if opcode == PING:
                mask = os.urandom(4)
                masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
                self._socket.sendall(bytes([0x80 | PONG, 0x80 | len(payload)]) + mask + masked)
                continue
            kind, content = opcode or kind, content + payload
            if last:
                return kind, content

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._read(8))
        return bool(first & 0x80), first & 0x0F, self._read(length)

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not (more := self._socket.recv(65536)):
                raise ConnectionError("the server closed the connection")
            self._buffer += more
        content, self._buffer = self._buffer[:count], self._buffer[count:]
        return content
