"""Probing clips in child processes: a file that crashes the decoder or keeps it busy forever costs one
clip, not the run. Run as a program, this module is the child."""

from __future__ import annotations

from ...storage.children import ChildPool, requests
from ..readers.requests import from_request, to_request
from ..readers.rows import Row
from .probe import ProbeResult, probe, unusable

CRASHES = "crashes the decoder"
TOO_SLOW = "decoding hangs"
TIME_LIMIT_S = 600.0


class ProbePool(ChildPool):
    """Child processes that probe clips. Use as a context; `probe` may be called from several threads."""

    def __init__(self, children: int, time_limit_s: float = TIME_LIMIT_S) -> None:
        super().__init__(__name__, children, time_limit_s)

    def probe(self, row: Row) -> ProbeResult:
        """`probe` in a child. If the child dies or takes too long, that is the reason the clip gets."""
        answer = self.ask(to_request(row))
        if not answer.line:
            return unusable(TOO_SLOW if answer.timed_out else CRASHES)
        return ProbeResult.from_json(answer.line)


def main() -> None:
    """The child: one answer per request, until the parent closes the pipe."""
    for request in requests():
        print(probe(from_request(request)).to_json(), flush=True)


if __name__ == "__main__":
    main()
