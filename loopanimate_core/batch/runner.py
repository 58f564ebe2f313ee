"""Distributes the pictures of a batch to servers and collects the loops.

Each server has a thread with one or a few prompts in flight. Every step is saved before it is done, so
that a batch can continue after a crash at any moment:

    waiting → posted → done | failed
       ↑________|  the server stopped or was restarted
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..errors import LoopAnimateError
from .answers import ServerFile
from .client import ComfyClient, PromptRefusedError
from .downloads import CannotWriteError, Downloads
from .pictures import PictureFile, upload_of
from .state import BatchState, Record
from .transport import ServerGoneError
from .workflow import BatchWorkflow

UPLOAD_FOLDER = "loopanimate_batch"
MAX_ATTEMPTS = 3
"""A picture fails if its server stopped this many times while it ran."""
HAND_OVER_S = 10.0
"""How long a server that does not answer keeps its pictures while other servers could take them."""
MAX_PROBES = 1000
PROBING_S = 60.0
STOP_S = 15.0
"""How long Ctrl-C waits for requests that are under way."""
SAME_FAILURES = 5
"""The batch stops if its first pictures, this many, all fail for the same reason."""


@dataclass(frozen=True)
class BatchEvent:
    """An event to show: a picture ended, or a server stopped or started answering."""

    kind: Literal["done", "failed", "gone", "back", "dropped"]
    subject: str
    text: str = ""


@dataclass
class _Flight:
    """A picture on a server."""

    picture: PictureFile
    prompt_id: str
    state: str = ""
    since_s: float = 0.0

    def stays_in(self, state: str, limit_s: float) -> bool:
        """Whether its prompt has been in this state for less than `limit_s`."""
        now_s = time.monotonic()
        if state != self.state:
            self.state, self.since_s = state, now_s
        return now_s - self.since_s < limit_s


@dataclass
class _Outage:
    """A time in which a server does not answer a kind of request; other servers may take its pictures."""

    kind: str
    since_s: float
    abandoned: list[_Flight] = field(default_factory=list)

    def is_over(self, client: ComfyClient) -> bool:
        """Whether it has answered such a request since."""
        return client.answered_s(self.kind) > self.since_s


class Batch:
    """One run over a folder; `run` blocks until every picture is done or has failed."""

    def __init__(
        self,
        workflow: BatchWorkflow,
        pictures: Sequence[PictureFile],
        clients: Sequence[ComfyClient],
        state: BatchState,
        *,
        seed: int | None = None,
        out: Path | None = None,
        retry_failed: bool = False,
        in_flight: int = 2,
        wait_s: float = 120.0,
        picture_limit_s: float = 6 * 3600.0,
        poll_s: float = 0.5,
        listen: Callable[[BatchEvent], None] = lambda event: None,
    ) -> None:
        """
        Args:
            seed: one seed for every picture; None derives one for each from the workflow's.
            out: the folder to download the loops to; None leaves them on the servers.
            retry_failed: try pictures again that failed in an earlier run.
            in_flight: prompts on one server at a time; with 2 a server never waits for the next.
            wait_s: how long to wait for a server that does not answer, or answers only in part.
            picture_limit_s: how long a picture may wait in a server's queue, and how long it may run.
            poll_s: the time between two requests to a server.
            listen: called from several threads, but never by two at the same time.
        """
        self._workflow, self._clients, self._state = workflow, clients, state
        self._seed, self._downloads = seed, None if out is None else Downloads(out)
        self._in_flight, self._wait_s, self._poll_s = in_flight, wait_s, poll_s
        self._picture_limit_s = picture_limit_s
        self._listener = listen
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._reasons: list[str] | None = []  # of the failures so far; None after a success
        self._dropped: list[str] = []
        self._pictures = {picture.key: picture for picture in pictures}
        self.records = state.records(pictures)
        self._waiting: deque[PictureFile] = deque()
        self._flights: dict[str, list[_Flight]] = {client.url: [] for client in clients}
        self._left: dict[str, deque[PictureFile]] = {client.url: deque() for client in clients}
        self._sort_in(retry_failed)

    def _sort_in(self, retry_failed: bool) -> None:
        """Sort the pictures by their records: posted ones belong to their server, the rest waits."""
        for key, record in self.records.items():
            picture = self._pictures[key]
            if record.status == "posted" and record.server in self._flights:
                self._flights[record.server].append(_Flight(picture, record.prompt_id))
            elif record.status in ("waiting", "posted"):
                self._waiting.append(picture)
            elif record.status == "failed" and retry_failed:
                self.records[key] = self._state.save(record, status="waiting", attempts=0)
                self._waiting.append(picture)
            elif record.status == "done":
                self._reasons = None
                if self._downloads is not None and not self._downloads.has(record):
                    self._want_again(picture, record)

    def _want_again(self, picture: PictureFile, record: Record) -> None:
        """A loop was made, but is not in the folder: fetch it if its server is one of ours, else make it."""
        self.records[picture.key] = replace(record, status="waiting")  # on the disk it stays done
        if record.saved and record.server in self._left:
            self._left[record.server].append(picture)
        else:
            self._waiting.append(picture)

    @property
    def remaining(self) -> int:
        """The number of pictures that are neither done nor failed."""
        with self._lock:
            queues = (*self._flights.values(), *self._left.values())
            return len(self._waiting) + sum(map(len, queues))

    def run(self) -> None:
        """Work until no picture remains; `records` has the result of each.

        Raises:
            LoopAnimateError: no server is left that runs the workflow, or a file cannot be written.
            KeyboardInterrupt: prompts that had not started are removed from the servers; another run
                continues the batch.
        """
        # Events instead of `join`: in Python 3.11 a thread counts as ended after its `join` was
        # interrupted. Threads wait for `go`, so that an interrupt finds all of them started, or no work.
        go, ends = threading.Event(), [threading.Event() for _ in self._clients]
        for client, end in zip(self._clients, ends, strict=True):
            threading.Thread(
                target=self._work, args=(client, go, end), name=client.url, daemon=True
            ).start()
        try:
            go.set()
            for end in ends:
                while not end.wait(0.1):
                    pass
        except KeyboardInterrupt:
            self._stop.set()
            until = time.monotonic() + STOP_S
            for end in ends:
                end.wait(max(0.0, until - time.monotonic()))
            raise
        if self._error is not None:
            raise self._error
        if self.remaining:
            raise LoopAnimateError(
                f"no server is left for {self.remaining} pictures: {'; '.join(self._dropped)}"
            )

    # ------------------------------------------------------------------------- the thread of a server
    def _work(self, client: ComfyClient, go: threading.Event, end: threading.Event) -> None:
        flights = self._flights[client.url]
        go.wait()
        try:
            outage: _Outage | None = None
            while not self._stop.is_set() and self.remaining:
                try:
                    if outage is not None:
                        self._return(client, outage)
                    self._turn(client, flights)
                    error = None
                except ServerGoneError as gone:
                    error = gone
                if outage is not None and (error is None or outage.is_over(client)):
                    self._say("back", client.url)
                    outage = None
                if error is not None:
                    if outage is None:
                        outage = _Outage(error.kind, time.monotonic())
                        self._say("gone", client.url, str(error))
                    if not self._bear(client, flights, outage, str(error)):
                        return
                self._stop.wait(self._poll_s)
            if self._stop.is_set():
                self._take_back(client, flights)
        except PromptRefusedError as error:
            self._drop(client, flights, str(error))
        except BaseException as error:
            self._error = error
            self._stop.set()
        finally:
            end.set()

    def _turn(self, client: ComfyClient, flights: list[_Flight]) -> None:
        """Collect what an earlier run left and the prompts that have ended, and post new ones."""
        self._collect_left(client)
        lost: list[_Flight] = []
        for flight in list(flights):
            status = client.status(flight.prompt_id)
            if status.state == "done":
                self._finish(client, flight.picture, status.files)
            elif status.state == "failed":
                self._fail(flight.picture, status.reason, by_server=True)
            elif status.state == "unknown":
                lost.append(flight)
                continue
            elif not flight.stays_in(status.state, self._picture_limit_s):
                client.cancel(flight.prompt_id)
                limit_s = f"{self._picture_limit_s:g} s"
                self._fail(flight.picture, f"still {status.state} after {limit_s}", by_server=True)
            else:
                continue
            flights.remove(flight)
        self._lose_all(lost, flights)
        while len(flights) < self._in_flight and not self._stop.is_set():
            picture = self._next()
            if picture is None:
                return
            self._send(client, flights, picture)

    def _next(self) -> PictureFile | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _send(self, client: ComfyClient, flights: list[_Flight], picture: PictureFile) -> None:
        """Post one picture, unless it is damaged or its loop already exists on the server."""
        flight = _Flight(picture, str(uuid.uuid4()))
        flights.append(flight)  # from now on it belongs to this server
        try:
            self._post(client, flights, flight)
        except ServerGoneError:
            if self.records[picture.key].status == "waiting":  # the server never had it
                flights.remove(flight)
                with self._lock:
                    self._waiting.appendleft(picture)
            raise

    def _post(self, client: ComfyClient, flights: list[_Flight], flight: _Flight) -> None:
        picture = flight.picture
        record = self.records[picture.key]
        if found := self._finished_unseen(client, record):
            self._finish(client, picture, (found,))
            flights.remove(flight)
            return
        try:
            name, data = upload_of(picture, self._workflow.on_white)
            uploaded = client.upload(name, data, UPLOAD_FOLDER)
        except ServerGoneError:
            raise
        except LoopAnimateError as error:
            self._fail(picture, str(error))
            flights.remove(flight)
            return
        graph = self._workflow.fit(uploaded, picture.name, picture.key, self._seed)
        expected = self._next_file(client, picture)
        self._save(
            picture,
            status="posted",
            server=client.url,
            prompt_id=flight.prompt_id,
            expected=expected,
        )
        flight.prompt_id = client.post(graph, flight.prompt_id)
        self._save(picture, prompt_id=flight.prompt_id)

    def _collect_left(self, client: ComfyClient) -> None:
        """Download the loops that an earlier run left on this server."""
        left = self._left[client.url]
        while left and not self._stop.is_set():
            picture = left[0]
            try:
                self._bring_in(client, picture, self.records[picture.key].saved)
            except (ServerGoneError, CannotWriteError):
                raise
            except LoopAnimateError:  # the server does not have it any more
                with self._lock:
                    self._waiting.append(picture)
            left.popleft()

    def _bring_in(
        self, client: ComfyClient, picture: PictureFile, files: tuple[ServerFile, ...]
    ) -> None:
        """Download the loops of a picture, if wanted, and mark it as done.

        Raises:
            LoopAnimateError: a loop cannot be had.
        """
        if not files:
            raise LoopAnimateError("the workflow ran but saved no file")
        if self._downloads is None:
            shown, where = f"{client.url}/{files[0].subfolder}/{files[0].filename}", {}
        else:
            found = self.records[picture.key]
            planned = found.results if found.folder == self._downloads.folder else ()

            def plan(names: tuple[str, ...]) -> None:
                # Saved first, so that after a crash the same names are used instead of a second copy.
                self._save(picture, results=names, folder=folder)

            folder = self._downloads.folder
            names = self._downloads.bring(client, picture.name, files, planned, plan)
            shown, where = str(self._downloads.out / names[0]), {"results": names, "folder": folder}
        self._reasons = None
        changes = {"status": "done", "reason": "", "server": client.url, "saved": files, **where}
        self._save(picture, **changes)
        self._say("done", picture.key, shown)

    def _finish(
        self, client: ComfyClient, picture: PictureFile, files: tuple[ServerFile, ...]
    ) -> None:
        """`_bring_in`, or the picture has failed."""
        try:
            self._bring_in(client, picture, files)
        except (ServerGoneError, CannotWriteError):
            raise
        except LoopAnimateError as error:
            self._fail(picture, str(error), by_server=True)

    def _fail(self, picture: PictureFile, reason: str, by_server: bool = False) -> None:
        self._save(picture, status="failed", reason=reason, expected=None)
        self._say("failed", picture.key, reason)
        if not by_server or self._reasons is None:
            return
        self._reasons.append(reason)
        if len(self._reasons) >= SAME_FAILURES and len(set(self._reasons)) == 1:
            raise LoopAnimateError(
                f"the first {len(self._reasons)} pictures all failed with: {reason}; correct the workflow"
                " or the server, then run again with --retry-failed"
            )

    def _lose(self, flight: _Flight, to_blame: bool) -> None:
        """Put a picture whose prompt is lost back to the front of the waiting pictures."""
        record = self.records[flight.picture.key]
        attempts = record.attempts + to_blame
        if attempts >= MAX_ATTEMPTS:
            self._save(flight.picture, attempts=attempts)
            self._fail(flight.picture, f"the server stopped {attempts} times while it ran")
            return
        self._save(flight.picture, status="waiting", attempts=attempts)
        with self._lock:
            self._waiting.appendleft(flight.picture)

    # ------------------------------------------------------------------- servers that do not answer
    def _bear(
        self, client: ComfyClient, flights: list[_Flight], outage: _Outage, reason: str
    ) -> bool:
        """Wait for a server that fails; False if it is given up.

        The time counts until it answers what it failed to answer, so that a server that answers one kind of
        request and never another is given up too. It keeps its pictures for a while, so that a short network
        failure does not make them twice.
        """
        silent_s = time.monotonic() - outage.since_s
        if silent_s > self._wait_s:
            self._drop(client, flights, f"{client.url} does not answer ({reason})")
            return False
        if silent_s > HAND_OVER_S and len(self._clients) - len(self._dropped) > 1:
            outage.abandoned += flights
            self._lose_all(list(flights), flights)
            self._hand_over_left(client)
        return True

    @staticmethod
    def _return(client: ComfyClient, outage: _Outage) -> None:
        """Remove pictures that other servers took from its queue. Raises ServerGoneError."""
        client.ping()
        while outage.abandoned:
            client.cancel(outage.abandoned[-1].prompt_id)
            outage.abandoned.pop()

    def _hand_over_left(self, client: ComfyClient) -> None:
        left = self._left[client.url]
        with self._lock:
            while left:
                self._waiting.append(left.popleft())

    def _lose_all(self, lost: list[_Flight], flights: list[_Flight], blame: bool = True) -> None:
        """Remove these from a server; they wait again, in their order, before all others.

        The oldest was running when the server stopped and may be the cause; the others only waited.
        """
        for flight in reversed(lost):
            self._lose(flight, to_blame=blame and flight is lost[0])
            flights.remove(flight)

    def _drop(self, client: ComfyClient, flights: list[_Flight], reason: str) -> None:
        """Stop using a server; its pictures go to the others."""
        self._dropped.append(reason)
        self._say("dropped", client.url, reason)
        self._lose_all(list(flights), flights, blame=False)
        self._hand_over_left(client)

    def _take_back(self, client: ComfyClient, flights: list[_Flight]) -> None:
        """Remove the prompts that have not started; the next run finds those that have."""
        try:
            for flight in flights:
                client.withdraw(flight.prompt_id)
                if client.status(flight.prompt_id).state == "unknown":
                    self._save(flight.picture, status="waiting")
        except (ServerGoneError, LoopAnimateError):
            return  # the next run asks the server again

    # ---------------------------------------------------------------------------------- file names
    def _next_file(self, client: ComfyClient, picture: PictureFile) -> ServerFile | None:
        """The file that the next run for this picture will save, if it is known."""
        until = time.monotonic() + PROBING_S
        for number in range(1, MAX_PROBES):
            if time.monotonic() > until:
                return None
            file = self._workflow.saved_file(picture.name, number)
            if file is None or not client.has_file(file):
                return file
        return None

    def _finished_unseen(self, client: ComfyClient, record: Record) -> ServerFile | None:
        """The loop that a lost prompt saved before its server stopped."""
        file = record.expected
        if file and record.server == client.url and record.prompt_id and client.has_file(file):
            return file
        return None

    # -------------------------------------------------------------------------------- bookkeeping
    def _save(self, picture: PictureFile, **changes: object) -> None:
        self.records[picture.key] = self._state.save(self.records[picture.key], **changes)

    def _say(self, kind: Literal["done", "failed", "gone", "back", "dropped"], *text: str) -> None:
        with self._lock:
            self._listener(BatchEvent(kind, *text))
