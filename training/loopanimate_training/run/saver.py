"""Saving checkpoints. While the disk is full, the run waits and loses nothing."""

from __future__ import annotations

from ..config import RunConfig
from ..storage.checkpoint import CannotSave, Checkpoint, save_checkpoint
from .heartbeat import SAVING, WAITING, Heartbeat
from .log import RunLog
from .requests import Requests


class Saver:
    """Saves checkpoints, and tries again while that fails; all processes wait together."""

    def __init__(
        self, config: RunConfig, requests: Requests, heartbeat: Heartbeat, log: RunLog
    ) -> None:
        self._config, self._requests = config, requests
        self._heartbeat, self._log = heartbeat, log

    def save(self, step: int, checkpoint: Checkpoint | None) -> bool:
        """Save on the first process, again and again until it works. The other processes pass None.

        Every failed attempt is printed and shown in the heartbeat.

        Returns:
            False when a stop was requested during the wait: the checkpoint is not saved then.
        """
        waited = False
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
