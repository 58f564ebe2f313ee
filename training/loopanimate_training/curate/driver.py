"""Going through a data set: measure what is not measured yet, then decide about every clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError

from ..config import CurateConfig
from ..data.readers.detect import open_reader
from ..data.readers.layouts import KEPT
from ..data.readers.rows import Row
from ..data.shard import Shard
from ..progress import refresh_s
from .duplicates import earlier_twins
from .executors import Executor, measured
from .journal import Journal
from .judge import DUPLICATE, Fault, best_part, faults
from .measure import Scores
from .outcome import FAILED, Outcome

REJECTED = "rejected"


@dataclass(frozen=True)
class Verdict:
    """A clip with what was measured and decided.

    Attributes:
        status: `kept`, `rejected` (it breaks a limit), `failed` (it cannot be read) or `quarantined`.
        faults: every reason against it; empty if it is kept.
        note: which part of it is kept, if not all; then `row` and `outcome` are those of the part.
    """

    row: Row
    outcome: Outcome
    status: str
    faults: tuple[Fault, ...] = ()
    note: str = ""

    @property
    def reason(self) -> str:
        """The first fault in a few words; "" if the clip is kept."""
        return self.faults[0].reason if self.faults else ""


def list_rows(config: CurateConfig) -> list[Row]:
    """Every clip of the data set, those that the reader refuses included.

    Raises:
        LoopAnimateError: there is none.
    """
    rows = list(islice(open_reader(config.data).rows(), config.data.clips))
    if not rows:
        raise LoopAnimateError(f"there are no clips in {config.data.path}")
    return rows


def measure_all(
    rows: Sequence[Row],
    config: CurateConfig,
    table: Path,
    *,
    shard: Shard | None = None,
    workers: int = 1,
    executor: Executor = "local",
    retry: bool = False,
) -> list[Outcome]:
    """The outcomes of a shard's rows, in order. Those in the journal beside `table` are not measured again.

    Args:
        retry: measure quarantined clips once more.

    Raises:
        LoopAnimateError: a network cannot be used, or the journal cannot be written.
    """
    shard, journal = shard or Shard(), Journal(table, config.measure)
    mine = [rows[number] for number in shard.of(len(rows))]
    with journal.writing(shard) as writer:
        known = journal.read(retry)
        outcomes: dict[int, Outcome] = {}
        keys: dict[int, str] = {}
        for number, row in enumerate(mine):
            if row.reason:
                outcomes[number] = Outcome(None, FAILED, row.reason, "")
                continue
            try:
                keys[number] = journal.key(row)
            except OSError as error:
                detail = f"{row.media.path}: {error.strerror or error}"
                outcomes[number] = Outcome(None, FAILED, "missing", detail)
        first = {key: number for number, key in reversed(keys.items()) if key not in known}
        pending = sorted(first.values())
        found = measured([mine[number] for number in pending], config, workers, executor)
        interval_s = refresh_s()
        bar = tqdm(
            zip(pending, found, strict=True),
            total=len(pending),
            desc="curate",
            unit="clip",
            mininterval=interval_s,
            delay=interval_s,
        )
        for number, outcome in bar:
            known[keys[number]] = outcome
            writer.write({"key": keys[number], "id": mine[number].id, **outcome.to_values()})
        try:
            writer.sync()
        except OSError as error:
            raise LoopAnimateError(
                f"cannot write {writer.path}: {error.strerror or error}; "
                "the same command will continue where it stopped"
            ) from error
    return [outcomes[n] if n in outcomes else known[keys[n]] for n in range(len(mine))]


def decide(rows: Sequence[Row], outcomes: Sequence[Outcome], config: CurateConfig) -> list[Verdict]:
    """A verdict about every row. Of near-duplicates among the clips that would be kept, the first stays."""
    verdicts = [_verdict(row, outcome, config) for row, outcome in zip(rows, outcomes, strict=True)]
    kept = [number for number, verdict in enumerate(verdicts) if verdict.status == KEPT]
    twins = earlier_twins([_hash(verdicts[n].outcome) for n in kept], config.limits.duplicate_bits)
    for number, twin in zip(kept, twins, strict=True):
        if twin is not None:
            fault = Fault(DUPLICATE, f"looks like {rows[kept[twin]].id}")
            verdicts[number] = replace(verdicts[number], status=REJECTED, faults=(fault,))
    return verdicts


def count_rows(verdicts: Sequence[Verdict]) -> list[str]:
    """A line of text per status and reason, for people."""
    counts = Counter((verdict.status, verdict.reason) for verdict in verdicts)
    order = sorted(counts.items(), key=lambda item: (item[0][0] != KEPT, item[0][0], -item[1]))
    return [f"{status:<12}{reason:<40}{count:>10,}" for (status, reason), count in order]


def _verdict(row: Row, outcome: Outcome, config: CurateConfig) -> Verdict:
    if outcome.scores is None:
        return Verdict(row, outcome, outcome.status, (Fault(outcome.reason, outcome.detail),))

    def against(scores: Scores) -> list[Fault]:
        limits, uncaptioned = config.limits, config.data.uncaptioned
        return faults(scores, row.caption, limits, config.measure, uncaptioned)

    scores = outcome.scores
    found = against(scores)
    if not found:
        one_round = config.limits.loops == "only" and scores.loop_end_s is not None
        place = replace(row, end_s=scores.loop_end_s) if one_round else row
        note = f"a loop of {scores.loop_frames} frames" if one_round else ""
        return Verdict(place, outcome, KEPT, note=note)
    part = best_part(scores.windows, lambda one: not against(one))
    if part is None:
        return Verdict(row, outcome, REJECTED, tuple(found))
    last = part.start + part.scores.frames - 1
    note = f"frames {part.start} to {last} of {scores.frames}; all of it: {found[0].reason}"
    place = replace(row, start_s=part.start_s, end_s=part.end_s)
    return Verdict(place, Outcome(part.scores), KEPT, note=note)


def _hash(outcome: Outcome) -> int:
    assert outcome.scores is not None and outcome.scores.hash_first and outcome.scores.hash_turn
    return int(outcome.scores.hash_first + outcome.scores.hash_turn, 16)
