"""`loopanimate batch`: every picture of a folder through a workflow, on running ComfyUI servers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoopAnimateError
from .outputs import require_writable

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..batch import Batch, BatchEvent, BatchWorkflow, ComfyClient, PictureFile, Record

EXIT_FAILURES = 1


def batch(arguments: argparse.Namespace) -> int:
    """Run the batch, list what failed, and return 1 if something did."""
    from ..batch import Batch, BatchState, list_pictures, read_workflow

    _require_sane(arguments)
    folder, out = Path(arguments.folder), arguments.out and Path(arguments.out)
    pictures = list_pictures(folder)
    workflow = read_workflow(Path(arguments.workflow), arguments.picture_node)
    if out:
        workflow.require_fetchable()
        _make_folder(out)
    clients = _ready_servers(arguments.server or ["http://127.0.0.1:8188"], workflow)
    state_path = Path(arguments.state) if arguments.state else _beside(folder)
    require_writable(state_path, force=True)
    state = BatchState(state_path, workflow.job(arguments.seed))
    progress = _Progress(quiet=arguments.quiet)
    try:
        work = Batch(
            workflow,
            pictures,
            clients,
            state,
            seed=arguments.seed,
            out=out,
            retry_failed=arguments.retry_failed,
            in_flight=arguments.in_flight,
            wait_s=arguments.wait,
            listen=progress.show,
        )
        _work(work, pictures, progress)
    finally:
        state.close()
    return _report(work, pictures)


def _work(work: Batch, pictures: Sequence[PictureFile], progress: _Progress) -> None:
    """Run to the end, or say how far it came."""
    try:
        with progress.over(work.remaining):
            work.run()
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here")
        raise
    except LoopAnimateError:
        _report(work, pictures)
        raise


def _require_sane(arguments: argparse.Namespace) -> None:
    if arguments.in_flight not in (1, 2, 3, 4):
        raise LoopAnimateError(f"--in-flight is {arguments.in_flight}; it must be 1 to 4")
    if not 0 <= arguments.wait <= 86400:
        raise LoopAnimateError(f"--wait is {arguments.wait:g}; it must be 0 to 86400 seconds")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**64:
        raise LoopAnimateError(f"--seed is {arguments.seed}; it must be 0 to 2^64 - 1")


def _beside(folder: Path) -> Path:
    """`pictures.loopanimate.sqlite` beside the folder `pictures`."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.loopanimate.sqlite")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(f"cannot make the folder {path}: {error.strerror}") from error


def _ready_servers(urls: Sequence[str], workflow: BatchWorkflow) -> list[ComfyClient]:
    """The servers that answer, each with all nodes of the workflow.

    Raises:
        LoopAnimateError: none answers, or one lacks nodes; nothing was posted then.
    """
    from ..batch import ComfyClient, ServerGoneError

    clients = {client.url: client for client in map(ComfyClient, urls)}
    ready, silent = [], []
    for client in clients.values():
        try:
            client.require_nodes(workflow.node_types)
            ready.append(client)
        except ServerGoneError as error:
            silent.append(str(error))
    if not ready:
        raise LoopAnimateError(f"no ComfyUI server answers: {'; '.join(silent)}")
    for reason in silent:
        _say(f"left out, because it does not answer: {reason}")
    return ready


class _Progress:
    """A bar with the time left on terminals, and lines for what is worth one."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._bar = quiet, None

    def over(self, total: int) -> tqdm:
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            unit="loop",
            smoothing=0.1,
            leave=False,
            disable=True if self._quiet else None,
        )
        return self._bar

    def show(self, event: BatchEvent) -> None:
        line = {
            "done": f"{event.subject} -> {event.text}",
            "failed": f"{event.subject} failed: {event.text}",
            "gone": f"{event.text}: waiting for it",
            "back": f"{event.subject} is back",
            "dropped": f"{event.subject} is given up: {event.text}",
        }[event.kind]
        if event.kind == "done":
            if not self._quiet:
                self._write(line, sys.stdout)
        else:
            self._write(f"loopanimate: {line}", sys.stderr)
        if self._bar is None:
            return
        if event.kind == "done":
            self._bar.update()
        elif event.kind == "failed":  # takes no time: it would make the rest look fast
            self._bar.total -= 1
            self._bar.refresh()

    def _write(self, line: str, file: Any) -> None:
        if self._bar is None:
            print(line, file=file)
        else:
            self._bar.write(line, file=file)


def _report(work: Batch, pictures: Sequence[PictureFile]) -> int:
    """Say how it ended, with the failures of earlier runs too."""
    records: list[Record] = [work.records[picture.key] for picture in pictures]
    failed = [record for record in records if record.status == "failed"]
    done = sum(record.status == "done" for record in records)
    print(f"{done} of {len(records)} pictures have their loop" + (", failed:" if failed else ""))
    for record in failed:
        print(f"  {record.picture}: {record.reason}")
    return EXIT_FAILURES if failed else 0


def _say(message: str) -> None:
    print(f"loopanimate: {message}", file=sys.stderr)
