"""Learning rates: what each named course promises at its beginning, its end, and between."""

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import OptimizerConfig, RateSchedule
from train.schedule import rate_share

WARMUP, NUM_STEPS = 10, 50
FALLING = [RateSchedule.COSINE, RateSchedule.LINEAR, RateSchedule.INVERSE_SQRT]


def shares(schedule: RateSchedule, **choices: float) -> list[float]:
    config = OptimizerConfig(schedule=schedule, warmup_steps=WARMUP, **choices)  # type: ignore[arg-type]
    return [rate_share(config, step, NUM_STEPS) for step in range(2 * NUM_STEPS)]


@pytest.mark.parametrize("schedule", list(RateSchedule))
def test_every_schedule_rises_in_a_line_to_the_peak_and_never_leaves_0_to_1(schedule: RateSchedule):
    found = shares(schedule, final_lr_fraction=0.0)
    assert found[:WARMUP] == [(step + 1) / WARMUP for step in range(WARMUP)]
    assert all(0 <= share <= 1 for share in found)


@pytest.mark.parametrize("schedule", FALLING)
def test_after_the_warm_up_a_rate_falls_and_never_below_its_last_share(schedule: RateSchedule):
    found = shares(schedule, final_lr_fraction=0.2)
    after = found[WARMUP - 1 :]
    assert after == sorted(after, reverse=True)
    assert min(found[WARMUP:]) >= 0.2
    assert found[NUM_STEPS] < 0.5


@pytest.mark.parametrize("schedule", [RateSchedule.COSINE, RateSchedule.LINEAR])
def test_cosine_and_linear_are_half_way_down_in_the_middle_and_stay_at_their_end(schedule: RateSchedule):
    found = shares(schedule, final_lr_fraction=0.2)
    assert found[(WARMUP + NUM_STEPS) // 2] == pytest.approx(0.6)
    assert found[NUM_STEPS:] == pytest.approx([0.2] * NUM_STEPS)


def test_the_inverse_square_root_does_not_know_the_number_of_steps():
    config = OptimizerConfig(schedule=RateSchedule.INVERSE_SQRT, warmup_steps=WARMUP, final_lr_fraction=0.0)
    assert rate_share(config, 4 * WARMUP - 1, 50) == rate_share(config, 4 * WARMUP - 1, 50_000) == 0.5


def test_a_constant_rate_stays_at_its_peak():
    assert set(shares(RateSchedule.CONSTANT)[WARMUP:]) == {1.0}


def test_a_schedule_is_chosen_by_its_name_and_an_unknown_one_is_refused_with_the_names():
    assert load_config(["optimizer.schedule=inverse_sqrt"]).optimizer.schedule is RateSchedule.INVERSE_SQRT
    with pytest.raises(ConfigError, match=r"optimizer\.schedule=square .*inverse_sqrt"):
        load_config(["optimizer.schedule=square"])
