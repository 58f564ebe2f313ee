"""Saving checkpoints, in the background where possible. While the disk is full, the run waits and loses nothing."""

from __future__ import annotations

import logging
import threading

from ..config import RunConfig
from ..storage.checkpoint import CannotSave, Checkpoint, save_checkpoint
from .heartbeat import SAVING, WAITING, Heartbeat
from .log import RunLog
from .requests import Requests

_log = logging.getLogger(__name__)


class Saver:
    """Saves checkpoints, one at a time.

    `start` writes in a thread while training goes on. If that fails, `failed` says so, and the run makes up for it by
    `save`, which tries again until it works; all processes wait together. Leaving the context, also by an error, waits
    until the last checkpoint is on the disk; a second Ctrl-C does not.
    """

    def __init__(
        self, config: RunConfig, requests: Requests, heartbeat: Heartbeat, log: RunLog
    ) -> None:
        self._config, self._requests = config, requests
        self._heartbeat, self._log = heartbeat, log
        self._thread: threading.Thread | None = None
        self._failed = False

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):  # a second Ctrl-C ends at once
            self.wait()

    @property
    def failed(self) -> bool:
        """Whether the last checkpoint could not be written in the background."""
        return self._failed

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Write a checkpoint in the background, after the one before it. Its tensors must be copies, and the processes
        that do not save pass None."""
        if checkpoint is None or not self._requests.is_main:
            return
        self.wait()
        self._failed = False
        self._thread = threading.Thread(
            target=self._write_behind, args=(checkpoint,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written in the background."""
        if self._thread is None:
            return
        if self._thread.is_alive():
            with self._heartbeat.during(SAVING):
                self._thread.join()
        self._thread = None

    def save(self, step: int, checkpoint: Checkpoint | None) -> bool:
        """Save on the first process, again and again until it works. The other processes pass None.

        Every failed attempt is printed and shown in the heartbeat.

        Returns:
            False when a stop was requested during the wait: the checkpoint is not saved then.
        """
        self.wait()
        self._failed = waited = False
        while True:
            self._heartbeat.beat(step, SAVING)
            problem = None
            if checkpoint is not None and self._requests.is_main:
                problem = self._attempt(checkpoint)
            if not self._requests.max_of([problem is not None])[0]:
                break
            waited = True
            self._heartbeat.beat(step, WAITING)
            retry_s = self._config.save.retry_s
            self._log.message(
                f"step {step} WAITS for the disk: {problem}; next attempt in {retry_s:g} s"
            )
            if self._requests.poll().stops:
                self._log.message(
                    f"step {step} was NOT saved: a stop was requested during the wait"
                )
                return False
            self._requests.sleep(retry_s)
        if waited:
            self._log.message(f"step {step} is saved; the run continues")
        return True

    def _attempt(self, checkpoint: Checkpoint) -> Exception | None:
        try:
            self._log.sync()
            save_checkpoint(self._config.out, checkpoint, self._config.save.keep)
        except (CannotSave, OSError) as error:
            return error
        return None

    def _write_behind(self, checkpoint: Checkpoint) -> None:
        """Any failure is met again in the foreground, where it is handled."""
        try:
            problem = self._attempt(checkpoint)
        except Exception as error:
            problem = error
        if problem is not None:
            _log.warning("step %d is not saved yet: %s", checkpoint.step, problem)
            self._failed = True
