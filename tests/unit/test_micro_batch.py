"""The search for the largest micro-batch that fits, on made-up memories."""

from hypothesis import given
from hypothesis import strategies as st

from pretrain.engine import StepResult
from pretrain.micro_batch import largest_that_fits, seconds_of_a_step


class Memory:
    """Uses `fixed + slope x size` bytes, and notes what was tried."""

    def __init__(self, fixed: float, slope: float, seconds_per_sample: float = 0.0) -> None:
        self.fixed, self.slope, self.seconds_per_sample = fixed, slope, seconds_per_sample
        self.tried: list[int] = []

    def __call__(self, size: int) -> tuple[float, float]:
        self.tried.append(size)
        return self.fixed + self.slope * size, self.seconds_per_sample * size


def divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


@given(st.integers(1, 5000), st.floats(0, 1e9), st.floats(0, 1e7), st.floats(0, 2e10))
def test_the_largest_divisor_that_fits_is_found_and_no_larger_one_tried(samples: int, fixed: float, slope: float, budget: float) -> None:
    memory, candidates = Memory(fixed, slope), divisors(samples)
    found = largest_that_fits(candidates, memory, budget)
    fitting = [size for size in candidates if fixed + slope * size <= budget]
    rounding = 1e-9 * budget
    if not fitting:
        assert found is None and memory.tried == candidates[:1]
    elif fixed + slope * max(fitting) <= budget - rounding:
        assert found == max(fitting)
        beyond = [size for size in memory.tried if size > found]
        assert beyond in ([], candidates[1:2])  # the second is tried before there is a line


def test_sizes_grow_fourfold_at_most() -> None:
    memory = Memory(1.0, 1.0)
    assert largest_that_fits(divisors(4096), memory, 1e6) == 4096
    assert memory.tried == [1, 2, 8, 32, 128, 512, 2048, 4096]


def test_a_slow_device_is_not_kept_busy_for_long() -> None:
    """After a trial of more than ten seconds the line decides."""
    memory = Memory(1.0, 1.0, seconds_per_sample=0.5)
    assert largest_that_fits(divisors(4096), memory, 1500.0) == 1024
    assert memory.tried == [1, 2, 8, 32]


def test_memory_that_grows_faster_than_the_line_stops_at_the_last_that_fitted() -> None:
    tried = []

    def square(size: int) -> tuple[float, float]:
        tried.append(size)
        return float(size * size), 0.0

    assert largest_that_fits([1, 2, 4, 8, 16], square, 50.0) == 2
    assert tried == [1, 2, 8]


class Overflowing:
    """An engine in fp16 whose first steps are skipped, each of them halving a loss scale that goes down to `least`."""

    def __init__(self, fits_at: float, least: float = 1.0) -> None:
        self.scale, self.fits_at, self.least = 2.0**16, fits_at, least
        self.accumulated = self.applied = 0

    def accumulate(self, window: list) -> None:
        self.accumulated += 1

    def step(self, lr: float) -> StepResult:
        assert lr == 0.0
        if self.scale <= self.fits_at:
            self.applied += 1
            return StepResult(True, 1.0)
        searching = self.scale > self.least
        self.scale = max(self.scale / 2, self.least)
        return StepResult(False, float("inf"), "gradient_not_finite", loss_scale_search=searching)


def test_a_trial_ends_with_a_step_that_was_applied() -> None:
    engine = Overflowing(fits_at=2.0**13)
    assert seconds_of_a_step(engine, []) >= 0.0
    assert (engine.accumulated, engine.applied) == (4, 1)


def test_a_trial_of_what_is_never_finite_ends() -> None:
    engine = Overflowing(fits_at=0.5)
    seconds_of_a_step(engine, [])
    assert (engine.accumulated, engine.applied) == (17, 0)
