"""Judges from the ranks' reports whether the job hangs, and which rank hangs it."""

from dataclasses import dataclass

from train.whereabouts import Place, Report

MAX_NAMED = 4
"""Ranks that one message names."""


@dataclass(slots=True)
class _Seen:
    report: Report
    answered_s: float
    moved_s: float


class Judge:
    """Keeps what each rank reported last, and since when it has neither got on nor answered.

    The job hangs where *no* rank has got on for ``patience_s`` and one of these holds: a rank does not answer, a rank
    has begun fewer collectives than the others of its group, or all are inside of one. Ranks that all compute for
    long, however long, do not hang.
    """

    def __init__(self, num_ranks: int, patience_s: float, max_gap_s: float) -> None:
        """``max_gap_s``: what at most counts of the time between two looks; this process may have been stopped."""
        self._patience_s, self._max_gap_s = patience_s, max_gap_s
        self._seen = {
            rank: _Seen(Report(Place("its start"), Place(), {}, num_told=-1), 0, 0) for rank in range(num_ranks)
        }
        self._clock_s = self._looked_s = 0.0

    def look(self, reports: dict[int, Report], now_s: float) -> None:
        """Take in the newest report of each rank that has made one."""
        self._clock_s += min(now_s - self._looked_s, self._max_gap_s) if self._looked_s else 0.0
        self._looked_s = now_s
        for rank, report in reports.items():
            seen = self._seen[rank]
            if report.num_told != seen.report.num_told:
                seen.answered_s = self._clock_s
            if report.is_moved_from(seen.report):
                seen.moved_s = self._clock_s
            seen.report = report

    def silent(self, for_s: float) -> list[int]:
        """Ranks that have not answered for so long."""
        return [rank for rank in self._running() if self._silence_s(rank) >= for_s]

    def process_of(self, rank: int) -> list[int | str]:
        """Machine, id and start of the process of ``rank``."""
        return self._seen[rank].report.process

    def verdict(self) -> str:
        """What hangs and who waits for it; empty while the job does not hang."""
        running = self._running()
        if not running or min(self._stillness_s(rank) for rank in running) < self._patience_s:
            return ""
        silent = self.silent(self._patience_s)
        behind = sorted(self._behind(running) - set(silent))
        waiting = [rank for rank in running if rank not in silent and rank not in behind]
        if silent or (behind and waiting):
            told = [*map(self._told_silent, silent), *map(self._told_behind, behind)]
            return "; ".join([*_shortened(told), *self._told_waiting(waiting)])
        if all(self._seen[rank].report.place.collective for rank in running):
            told = [f"rank {rank} in {self._seen[rank].report.place}" for rank in running]
            return "the ranks wait for each other, or the network between them is cut: " + ", ".join(_shortened(told))
        return ""

    def _running(self) -> list[int]:
        return [rank for rank in sorted(self._seen) if not self._seen[rank].report.has_ended]

    def _silence_s(self, rank: int) -> float:
        return self._clock_s - self._seen[rank].answered_s

    def _stillness_s(self, rank: int) -> float:
        return self._clock_s - self._seen[rank].moved_s

    def _behind(self, running: list[int]) -> set[int]:
        """Ranks that have begun the fewest collectives of a group of which another rank has begun more."""
        found = set()
        for group in {name for rank in running for name in self._seen[rank].report.num_collectives}:
            begun = {rank: self._seen[rank].report.num_collectives.get(group) for rank in running}
            counts = {rank: count for rank, count in begun.items() if count is not None}
            if min(counts.values()) < max(counts.values()):
                found |= {rank for rank, count in counts.items() if count == min(counts.values())}
        return found

    def _told_silent(self, rank: int) -> str:
        report = self._seen[rank].report
        return (
            f"rank {rank} has not answered for {self._silence_s(rank):.0f} s: its process is stopped, or stuck "
            f"outside of Python, or its machine is gone; it was last in {report.place} at step {report.step}"
        )

    def _told_behind(self, rank: int) -> str:
        report = self._seen[rank].report
        return (
            f"rank {rank} does not take part: at step {report.step} it has been in {report.place} for "
            f"{self._stillness_s(rank):.0f} s{_beside(report.checkpoint_place)}"
        )

    def _told_waiting(self, ranks: list[int]) -> list[str]:
        if not ranks:
            return []
        others = f" and {len(ranks) - 1} more wait" if len(ranks) > 1 else " waits"
        report = self._seen[ranks[0]].report
        return [f"rank {ranks[0]}{others} for it in {report.place}{_beside(report.checkpoint_place)}"]


def _beside(place: Place) -> str:
    return f" (its checkpoint thread in {place})" if place.code else ""


def _shortened(told: list[str]) -> list[str]:
    return told if len(told) <= MAX_NAMED else [*told[:MAX_NAMED], f"and {len(told) - MAX_NAMED} ranks more"]
