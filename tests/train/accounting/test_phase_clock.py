"""The phases of a rank exclude each other and sum to the time that has passed, whatever happens in them."""

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.accounting import phase_clock
from train.accounting.phase_clock import Phase, PhaseClock


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    now_s = [100.0]
    monkeypatch.setattr(phase_clock.time, "perf_counter", lambda: now_s[0])

    def wait(seconds: float) -> None:
        now_s[0] += seconds

    return wait


def spent(clock: PhaseClock) -> dict[str, float]:
    """Phases that took some time."""
    return {phase.value: seconds for phase, seconds in clock.seconds().items() if seconds}


def test_the_innermost_phase_has_the_time(passes: Callable[[float], None]):
    clock = PhaseClock(early_s=3.0)
    passes(1)
    clock.begin_work()
    passes(2)
    with clock.phase(Phase.VALIDATION):
        passes(4)
        with clock.phase(Phase.CHECKPOINTS):
            passes(8)
        passes(16)
    passes(32)
    assert spent(clock) == {"start": 4, "other": 34, "validation": 20, "checkpoints": 8}
    assert clock.total_s() == 3 + 63


def test_a_step_is_cut_up_where_it_says(passes: Callable[[float], None]):
    clock = PhaseClock()
    clock.begin_work()
    with clock.step():
        passes(1)
        clock.switch(Phase.LOOKUP)
        passes(2)
        with clock.exchange():
            passes(4)
            clock.switch(Phase.LOSS)  # of the exchange nothing is another phase's
            passes(8)
        passes(16)
        clock.switch(Phase.ENCODER)
        passes(32)
    assert spent(clock) == {"optimizer": 1, "lookup": 18, "communication": 12, "encoder": 32}


def test_hooks_and_collectives_say_nothing_outside_of_a_step(passes: Callable[[float], None]):
    """A ranking goes through the same encoder."""
    clock = PhaseClock()
    clock.begin_work()
    with clock.phase(Phase.RANKING):
        clock.switch(Phase.ENCODER)
        with clock.exchange():
            passes(5)
    clock.switch(Phase.ENCODER)
    passes(1)
    assert spent(clock) == {"ranking": 5, "other": 1}


def test_an_error_leaves_its_phase(passes: Callable[[float], None]):
    clock = PhaseClock()
    clock.begin_work()
    with suppress(ValueError), clock.step(), clock.exchange():
        passes(1)
        raise ValueError
    passes(2)
    assert spent(clock) == {"communication": 1, "other": 2}


def test_a_session_does_not_begin_before_the_last_one_ended(passes: Callable[[float], None]):
    clock = PhaseClock(early_s=10.0)
    passes(2)
    clock.limit_early(5.0)
    assert clock.total_s() == 5
    clock.limit_early(1.0)
    assert clock.total_s() == 2, "what it has counted itself stays"
    clock.align(7.0)
    assert spent(clock) == {"start": 7}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([*Phase]), max_size=30), st.integers(0, 3))
def test_phases_sum_to_the_time_that_has_passed(phases: list[Phase], depth: int):
    """On the real clock, while another thread reads."""
    clock = PhaseClock()
    is_over = threading.Event()
    seen: list[float] = []

    def read() -> None:
        while not is_over.is_set():
            seen.append(clock.total_s())

    reader = threading.Thread(target=read)
    reader.start()
    began_s = clock.total_s()
    for phase in phases:
        with clock.phase(phase), clock.step():
            for inner in phases[:depth]:
                clock.switch(inner)
    total_s = clock.total_s()
    is_over.set()
    reader.join()
    assert began_s <= total_s
    assert seen == sorted(seen), "never back"
    assert sum(clock.seconds().values()) >= total_s
