"""`loopanimate batch`: every picture of a folder through a workflow, on running ComfyUI servers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoopAnimateError
from ..exit_codes import ExitCode
from ..files import make_folder
from ..parsing import plain_text
from ..ranges import check_seed
from .options import Commands, add_command
from .run import say

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..batch import Batch, BatchEvent, BatchWorkflow, ComfyClient, PictureFile, Record

MAX_LINE = 2000
DEFAULT_SERVER = "http://127.0.0.1:8188"
MAX_IN_FLIGHT = 4
MAX_WAIT_S = 86400
MAX_PICTURE_LIMIT_S = 30 * 86400

EPILOG = """\
examples:
  loopanimate batch pictures/ --workflow workflows/api/loopanimate_basic_api.json --out loops/
  loopanimate batch pictures/ --workflow mine_api.json --server gpu1:8188 --server gpu2:8188

The workflow is a file that ComfyUI saves with Workflow > Export (API). It needs a node Load Picture
From Folder (or Load Image) and a node Save Loop. Progress is kept in a file beside the folder: after
Ctrl-C or a crash the same command continues. The exit code is 1 if pictures failed; they are listed
with the reason.
"""


def add_parser(commands: Commands) -> None:
    """Add the command `batch`."""
    parser = add_command(
        commands,
        "batch",
        "make a loop of every picture in a folder, on running ComfyUI servers",
        run,
        usage="%(prog)s FOLDER --workflow FILE [--server URL ...] [options]",
        epilog=EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER", help="the pictures; subfolders are ignored")
    _add_work(parser.add_argument_group("what to make"))
    _add_servers(parser.add_argument_group("servers and progress"))


def _add_work(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workflow", metavar="FILE", required=True, help="a workflow in ComfyUI's API format"
    )
    group.add_argument(
        "--picture-node",
        metavar="ID",
        help="the node that gets the pictures, if several nodes load one",
    )
    group.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="the seed of every picture (default: one per picture, the same in every run)",
    )
    group.add_argument(
        "--out",
        metavar="FOLDER",
        help="download the loops to this folder (default: they stay on the server)",
    )


def _add_servers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--server",
        metavar="URL",
        action="append",
        help=f"a running ComfyUI; repeat it to share the work (default: {DEFAULT_SERVER})",
    )
    group.add_argument(
        "--in-flight",
        type=int,
        default=2,
        metavar="N",
        help=f"pictures queued on each server at a time, 1 to {MAX_IN_FLIGHT}",
    )
    group.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds to wait for a server that stopped answering; the others take its pictures",
    )
    group.add_argument(
        "--picture-limit",
        type=float,
        default=21600.0,
        metavar="S",
        help="seconds that a picture may wait in a server's queue, and then run, before it fails",
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="try pictures again that failed in earlier runs"
    )
    group.add_argument(
        "--state",
        metavar="FILE",
        help="the progress file (default: FOLDER.loopanimate.sqlite beside the folder)",
    )
    group.add_argument(
        "--quiet", action="store_true", help="no progress bar and no line for each loop"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the batch, list what failed, and return 1 if something failed."""
    from ..batch import Batch, BatchState, list_pictures, read_workflow

    _check(arguments)
    folder, out = Path(arguments.folder), arguments.out and Path(arguments.out)
    pictures = list_pictures(folder)
    workflow = read_workflow(Path(arguments.workflow), arguments.picture_node)
    if out:
        workflow.require_fetchable()
        make_folder(out)
    clients = _ready_servers(arguments.server or [DEFAULT_SERVER], workflow)
    state_path = Path(arguments.state) if arguments.state else _beside(folder)
    if not state_path.parent.is_dir():
        raise LoopAnimateError(f"cannot write {state_path}: there is no folder {state_path.parent}")
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
            picture_limit_s=arguments.picture_limit,
            listen=progress.show,
        )
        _work(work, pictures, progress)
    finally:
        state.close()
    return _report(work, pictures)


def _work(work: Batch, pictures: Sequence[PictureFile], progress: _Progress) -> None:
    """Run to the end, or report how far the batch got."""
    try:
        with progress.over(work.remaining):
            work.run()
    except KeyboardInterrupt:
        _say("stopped; the same command continues from here")
        raise
    except LoopAnimateError:
        _report(work, pictures)
        raise


def _check(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.in_flight <= MAX_IN_FLIGHT:
        raise LoopAnimateError(
            f"--in-flight must be from 1 to {MAX_IN_FLIGHT}, got {arguments.in_flight}"
        )
    if not 0 <= arguments.wait <= MAX_WAIT_S:
        raise LoopAnimateError(
            f"--wait must be from 0 to {MAX_WAIT_S} seconds, got {arguments.wait:g}"
        )
    if not 1 <= arguments.picture_limit <= MAX_PICTURE_LIMIT_S:
        raise LoopAnimateError(
            f"--picture-limit must be from 1 to {MAX_PICTURE_LIMIT_S} seconds, got"
            f" {arguments.picture_limit:g}"
        )
    if arguments.seed is not None:
        check_seed("--seed", arguments.seed)


def _beside(folder: Path) -> Path:
    """`pictures.loopanimate.sqlite` beside the folder `pictures`."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.loopanimate.sqlite")


def _ready_servers(urls: Sequence[str], workflow: BatchWorkflow) -> list[ComfyClient]:
    """The servers that answer; each has all nodes of the workflow.

    Raises:
        LoopAnimateError: no server answers, or one has not all nodes; nothing has been posted yet.
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
        _say(f"a server is skipped: {reason}")
    return ready


class _Progress:
    """A progress bar on terminals, and a line for each event worth reading."""

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
            "gone": f"{event.text}: waiting for the server",
            "back": f"{event.subject} answers again",
            "dropped": f"{event.subject} is no longer used: {event.text}",
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
        elif (
            event.kind == "failed"
        ):  # counting it would make the estimate of the time left too short
            self._bar.total -= 1
            self._bar.refresh()

    def _write(self, line: str, file: Any) -> None:
        line = plain_text(line, MAX_LINE)  # names and reasons come from servers
        if self._bar is None:
            print(line, file=file)
        else:
            self._bar.write(line, file=file)


def _report(work: Batch, pictures: Sequence[PictureFile]) -> int:
    """Print the result, including the failures of earlier runs."""
    records: list[Record] = [work.records[picture.key] for picture in pictures]
    failed = [record for record in records if record.status == "failed"]
    done = sum(record.status == "done" for record in records)
    print(f"{done} of {len(records)} pictures have a loop" + (", failed:" if failed else ""))
    for record in failed:
        print(plain_text(f"  {record.picture}: {record.reason}", MAX_LINE))
    return ExitCode.FAILED if failed else ExitCode.OK


def _say(message: str) -> None:
    say("loopanimate", message)
