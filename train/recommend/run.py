"""Recommendations of a run, from the model to ship to a file: blocks in rounds over the ranks, rows on rank 0."""

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict

import numpy as np
import polars as pl

from configs.run_dir import READER, local_run_dir, user_cache
from configs.schema import RunConfig
from configs.schema.recommend import Recommended
from data_pipeline.store.manifest import Manifest
from train.build import build_state
from train.checkpoint.model_to_ship import model_to_ship
from train.checkpoint.reading import checkpoints_of
from train.distributed.collectives import ProcessGroupCollectives, from_rank_zero, on_rank_zero, process_group
from train.distributed.heartbeat import heartbeating
from train.recommend.asked import Asked, asked_of
from train.recommend.histories import EveryItem, GivenHistories, Queries, QueryBlock, StoreHistories
from train.recommend.output_file import COLUMNS, output_of, suffix_of_output
from train.recommend.popular import popular_items
from train.recommend.request import Request, job_of, request_of, targets_of
from train.recommend.scoring import BlockLists, Scorer
from train.recommend.unfinished import Unfinished
from train.run_dir.model_files import refuse_without_model
from train.state import TrainState
from train.supervision.watchdog import Watchdog

ROWS_PER_PART = 2**17
"""Rows of the output that rank 0 holds, and after which a killed command goes on."""

BLOCKS_PER_THREAD = 2
"""Of a round: who is done with a short one takes another."""


def recommend(config: RunConfig, typed: Collection[str] = ()) -> None:
    """Write what ``config.recommend`` asks for with the model to ship of ``config.run_dir``; ``typed``: the keys of
    ``config`` that a person has set, by which other events than the run's own may be meant. Collective."""
    with process_group(config.hardware) as device, Watchdog(config.hardware) as watchdog, ExitStack() as held:
        refuse_without_model(config)
        asked = asked_of(config, typed)
        config = asked.config
        request = _request(asked, watchdog.heartbeat)
        collectives = ProcessGroupCollectives()
        state = build_state(asked.model, asked.model_manifest, 1, collectives, device, held_out=None)
        trained = _restore(state, config, watchdog.heartbeat)
        opened: list[_Writer] = []

        def open_writer() -> int:
            with heartbeating(watchdog.heartbeat):
                writer = _Writer(asked, request, trained, watchdog.heartbeat)
            opened.append(held.enter_context(writer))
            return opened[0].first_row

        first_row = from_rank_zero(open_writer)
        scorer = held.enter_context(Scorer(state, config, request.catalogue.candidate, request.catalogue.value))
        queries = _queries(config, asked.manifest, request)
        began = time.perf_counter()
        for start, lists in _rounds(config, queries, scorer, first_row, watchdog.heartbeat):
            if opened:
                with heartbeating(watchdog.heartbeat):
                    opened[0].add(start, lists, queries)
        on_rank_zero(lambda: opened[0].finish(queries.num_rows, first_row, time.perf_counter() - began))


def _request(asked: Asked, heartbeat: Callable[[], None]) -> Request:
    """Read by rank 0; all ranks get it. Collective."""

    def read() -> Request:
        with heartbeating(heartbeat):
            request = request_of(asked)
        for note in request.notes:
            print(note, flush=True)
        return request

    return from_rank_zero(read)


def _restore(state: TrainState, config: RunConfig, heartbeat: Callable[[], None]) -> dict[str, object]:
    """Load the model to ship; what tells it from every other. Collective."""
    with checkpoints_of(config, heartbeat) as checkpointer:
        name = model_to_ship(checkpointer, config.checkpoint.use)
        progress = checkpointer.restore(name, state)
    return {"checkpoint": name, "step": state.step, **asdict(progress)}


def _queries(config: RunConfig, manifest: Manifest, request: Request) -> Queries:
    if config.recommend.what is Recommended.SIMILAR_ITEMS:
        return EveryItem(request.catalogue.raw)
    if request.given is not None:
        given = request.given
        return GivenHistories(
            given.raw,
            given.offsets,
            given.item,
            given.user,
            given.features,
            config.data.max_history,
            needs_row=config.model.knows_users_alone,
        )
    return StoreHistories(config, manifest, request.users, request.rows)


def _rounds(
    config: RunConfig, queries: Queries, scorer: Scorer, first_row: int, heartbeat: Callable[[], None]
) -> Iterator[tuple[int, list[BlockLists]]]:
    """The first row of each round, and its lists in order, on rank 0; none on other ranks. Collective.

    Which rows are a block depends on ``recommend.batch_size`` alone; who encodes it is nobody's business.
    """
    size, collectives = config.recommend.batch_size, ProcessGroupCollectives()
    own = size * scorer.num_threads * BLOCKS_PER_THREAD
    step = own * collectives.world_size

    def blocks_of(start: int) -> list[QueryBlock]:
        low = start + own * collectives.rank
        places = [(first, min(first + size, queries.num_rows)) for first in range(low, low + own, size)]
        return [queries.block(first, end) if first < end else QueryBlock() for first, end in places]

    with ThreadPoolExecutor(1, thread_name_prefix="read") as ahead:
        coming = ahead.submit(blocks_of, first_row)
        for start in range(first_row, queries.num_rows, step):
            blocks = coming.result()
            coming = ahead.submit(blocks_of, start + step)
            yield start, scorer.lists(blocks)
            heartbeat()


class _Writer:
    """Rank 0's: lists to rows with raw ids, rows to parts, parts to the output."""

    def __init__(
        self, asked: Asked, request: Request, trained: dict[str, object], heartbeat: Callable[[], None]
    ) -> None:
        config = asked.config
        self._config, self._manifest = config, asked.manifest
        self._catalogue, self._rows_of_model = request.catalogue, request.rows
        output = output_of(config)
        job = job_of(asked, trained)
        scratch = local_run_dir(config, READER).parent if config.scratch_dir else user_cache()
        self._file = Unfinished(
            output, suffix_of_output(config), scratch / f"recommend-{job['job'][:16]}", job, heartbeat
        )
        size = config.recommend.batch_size
        self._rows_per_part = size * max(ROWS_PER_PART // (size * config.recommend.k), 1)
        self.first_row = self._file.num_parts * self._rows_per_part
        self._frames: list[pl.DataFrame] = []
        self._num_taken = self.first_row
        self._popular: tuple[np.ndarray, np.ndarray] | None = None
        self._num_written = 0

    def __enter__(self) -> "_Writer":
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def add(self, start: int, lists: list[BlockLists], queries: Queries) -> None:
        """The blocks from row ``start`` on, in order."""
        for block in lists:
            if block.num_rows:
                end = start + block.num_rows
                self._frames.append(self._rows(block, queries.raw_of(start, end)))
                self._num_taken = start = end
                if end % self._rows_per_part == 0:
                    self._flush()

    def finish(self, num_rows: int, first_row: int, seconds: float) -> None:
        """Write what is left, and the output; say so."""
        if self._num_taken % self._rows_per_part or not self._file.num_parts:
            self._flush()
        names = [*COLUMNS[self._config.recommend.what], *self._config.recommend.item_columns]
        self._file.finish(names)
        first_row = min(first_row, num_rows)
        num_scored, what = num_rows - first_row, targets_of(self._config)
        rate = f"{num_scored / max(seconds, 1e-9):,.0f} {what}/s"
        resumed = f", the first {first_row:,} by an earlier start" if first_row else ""
        print(
            f"{output_of(self._config)}: {num_rows:,} {what}{resumed}; {num_scored:,} in {seconds:.1f} s ({rate})",
            flush=True,
        )

    def _flush(self) -> None:
        if self._num_taken > self._file.num_parts * self._rows_per_part or not self._file.num_parts:
            self._file.write(pl.concat(self._frames) if self._frames else self._frame_of_nothing())
            self._frames.clear()

    def _rows(self, block: BlockLists, raw: pl.Series) -> pl.DataFrame:
        wanted = self._config.recommend
        score = np.full((block.num_rows, wanted.k), -np.inf)
        item = np.full((block.num_rows, wanted.k), -1, dtype=np.int64)
        score[block.row], item[block.row] = block.score, block.item
        is_popular = np.ones(block.num_rows, dtype=bool)
        is_popular[block.row] = False
        if is_popular.any():
            self._popular = self._popular or popular_items(
                self._config, self._manifest, self._catalogue, self._rows_of_model.item
            )
            num = len(self._popular[0])
            score[is_popular, :num], item[is_popular, :num] = self._popular
        row, rank = np.nonzero(item >= 0)
        found = item[row, rank]
        names = COLUMNS[wanted.what]
        columns: dict[str, pl.Series | np.ndarray] = {
            names[0]: raw.gather(row),
            names[1]: (rank + 1).astype(np.int32),
            names[2]: self._catalogue.raw.gather(found),
            names[3]: score[row, rank],
        }
        if wanted.what is Recommended.USERS:
            source = np.where(is_popular[row], "popular", "model")
            columns[names[4]] = pl.Series(source, dtype=pl.String)
        known = self._catalogue.columns
        return pl.DataFrame(columns).hstack(known[found]) if known.width else pl.DataFrame(columns)

    def _frame_of_nothing(self) -> pl.DataFrame:
        block = BlockLists(
            0,
            np.zeros(0, np.int64),
            np.zeros((0, self._config.recommend.k)),
            np.zeros((0, self._config.recommend.k), np.int64),
        )
        return self._rows(block, self._catalogue.raw[:0])
