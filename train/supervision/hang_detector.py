"""Judges from the ranks' reports whether the job hangs, and which rank hangs it."""

from dataclasses import dataclass

from train.supervision.rank_status import CodeLocation, RankStatus

MAX_NAMED = 4
"""Ranks that one message names."""


@dataclass(slots=True)
class _Seen:
    status: RankStatus
    answered_s: float
    moved_s: float


class HangDetector:
    """Keeps what each rank reported last, and since when it has neither got on nor answered.

    The job hangs where *no* rank has got on for ``patience_s`` and one of these holds: a rank does not answer, a rank
    has begun fewer collectives than the others of its group, or all are inside of one. Ranks that all compute for
    long, however long, do not hang.
    """

    def __init__(self, num_ranks: int, patience_s: float, max_gap_s: float) -> None:
        """``max_gap_s``: what at most counts of the time between two looks; this process may have been stopped."""
        self._patience_s, self._max_gap_s = patience_s, max_gap_s
        self._seen = {
            rank: _Seen(RankStatus(CodeLocation("its start"), CodeLocation(), {}, num_sent=-1), 0, 0)
            for rank in range(num_ranks)
        }
        self._clock_s = self._looked_s = 0.0

    def look(self, statuses: dict[int, RankStatus], now_s: float) -> None:
        """Take in the newest report of each rank that has made one."""
        self._clock_s += min(now_s - self._looked_s, self._max_gap_s) if self._looked_s else 0.0
        self._looked_s = now_s
        for rank, status in statuses.items():
            seen = self._seen[rank]
            if status.num_sent != seen.status.num_sent:
                seen.answered_s = self._clock_s
            if status.is_moved_from(seen.status):
                seen.moved_s = self._clock_s
            seen.status = status

    def silent(self, for_s: float) -> list[int]:
        """Ranks that have not answered for so long."""
        return [rank for rank in self._running() if self._silence_s(rank) >= for_s]

    def process_of(self, rank: int) -> list[int | str]:
        """Machine, id and start of the process of ``rank``."""
        return self._seen[rank].status.process

    def diagnose(self) -> str:
        """What hangs and who waits for it; empty while the job does not hang."""
        running = self._running()
        if not running or min(self._idle_s(rank) for rank in running) < self._patience_s:
            return ""
        silent = self.silent(self._patience_s)
        behind = sorted(self._lagging(running) - set(silent))
        waiting = [rank for rank in running if rank not in silent and rank not in behind]
        if silent or (behind and waiting):
            told = [*map(self._describe_silent, silent), *map(self._describe_lagging, behind)]
            return "; ".join([*_shorten(told), *self._describe_waiting(waiting)])
        if all(self._seen[rank].status.location.collective for rank in running):
            told = [f"rank {rank} in {self._seen[rank].status.location}" for rank in running]
            return "the ranks wait for each other, or the network between them is cut: " + ", ".join(_shorten(told))
        return ""

    def _running(self) -> list[int]:
        return [rank for rank in sorted(self._seen) if not self._seen[rank].status.has_ended]

    def _silence_s(self, rank: int) -> float:
        return self._clock_s - self._seen[rank].answered_s

    def _idle_s(self, rank: int) -> float:
        return self._clock_s - self._seen[rank].moved_s

    def _lagging(self, running: list[int]) -> set[int]:
        """Ranks that have begun the fewest collectives of a group of which another rank has begun more."""
        found = set()
        for group in {name for rank in running for name in self._seen[rank].status.num_collectives}:
            begun = {rank: self._seen[rank].status.num_collectives.get(group) for rank in running}
            counts = {rank: count for rank, count in begun.items() if count is not None}
            if min(counts.values()) < max(counts.values()):
                found |= {rank for rank, count in counts.items() if count == min(counts.values())}
        return found

    def _describe_silent(self, rank: int) -> str:
        status = self._seen[rank].status
        return (
            f"rank {rank} has not answered for {self._silence_s(rank):.0f} s: its process is stopped, or stuck "
            f"outside of Python, or its machine is gone; it was last in {status.location} at step {status.step}"
        )

    def _describe_lagging(self, rank: int) -> str:
        status = self._seen[rank].status
        return (
            f"rank {rank} does not take part: at step {status.step} it has been in {status.location} for "
            f"{self._idle_s(rank):.0f} s{_beside(status.checkpoint_location)}"
        )

    def _describe_waiting(self, ranks: list[int]) -> list[str]:
        if not ranks:
            return []
        others = f" and {len(ranks) - 1} more wait" if len(ranks) > 1 else " waits"
        status = self._seen[ranks[0]].status
        return [f"rank {ranks[0]}{others} for it in {status.location}{_beside(status.checkpoint_location)}"]


def _beside(location: CodeLocation) -> str:
    return f" (its checkpoint thread in {location})" if location.code else ""


def _shorten(told: list[str]) -> list[str]:
    return told if len(told) <= MAX_NAMED else [*told[:MAX_NAMED], f"and {len(told) - MAX_NAMED} ranks more"]
