"""Every moment of a step belongs to one part, and a GPU is asked for nothing before the step is over."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from pretrain import timeline as timelines
from pretrain.timeline import Timeline, collectives_timed, untimed

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until it is told to go on."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timelines.time, "perf_counter", lambda: clock.now)
    return clock


def pass_time(clock: SimpleNamespace, seconds: float) -> None:
    clock.now += seconds


def test_time_belongs_to_the_innermost_part(clock: SimpleNamespace) -> None:
    timeline = Timeline(CPU)
    pass_time(clock, 1)
    for _ in range(2):
        with timeline("backward"):
            pass_time(clock, 10)
            with timeline("communication"):
                pass_time(clock, 100)
            pass_time(clock, 10)
    pass_time(clock, 1)
    timeline.end()
    with timeline("communication"):  # asked for in the next step
        pass_time(clock, 1000)
    assert timeline.seconds() == {"other": 2.0, "backward": 40.0, "communication": 200.0}


def test_a_collective_is_timed_where_it_is_called_and_where_it_is_waited_for(clock: SimpleNamespace, monkeypatch) -> None:
    work = SimpleNamespace(wait=lambda: pass_time(clock, 5), is_completed=lambda: True)
    backend = SimpleNamespace(all_gather_into_tensor=lambda: pass_time(clock, 3))
    monkeypatch.setattr(dist, "all_reduce", lambda async_op: pass_time(clock, 1) or (work if async_op else None))
    plain, theirs = dist.all_reduce, backend.all_gather_into_tensor
    timeline = Timeline(CPU)
    with collectives_timed(timeline, backend):
        handle = dist.all_reduce(async_op=True)
        pass_time(clock, 20)
        handle.wait()
        assert handle.is_completed() and dist.all_reduce(async_op=False) is None
        backend.all_gather_into_tensor()
    timeline.end()
    assert timeline.seconds() == {"other": 20.0, "communication": 1.0 + 5.0 + 1.0 + 3.0}
    assert dist.all_reduce is plain and backend.all_gather_into_tensor is theirs


def test_a_part_that_fails_ends_too(clock: SimpleNamespace) -> None:
    timeline = Timeline(CPU)
    with pytest.raises(ZeroDivisionError), timeline("forward"):
        pass_time(clock, 2)
        raise ZeroDivisionError
    pass_time(clock, 3)
    timeline.end()
    assert timeline.seconds() == {"other": 3.0, "forward": 2.0}


class Gpu:
    """Stands in for torch.cuda: two streams, of which each has its own time, and events that are known when one was waited for."""

    def __init__(self) -> None:
        self.compute, self.side = SimpleNamespace(device=0, now=0.0), SimpleNamespace(device=0, now=0.0)
        self.current, self.waited = self.compute, False
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: SimpleNamespace) -> None:
                self.at = stream.now

            def synchronize(self) -> None:
                gpu.waited = True

            def elapsed_time(self, later: "Event") -> float:
                assert gpu.waited, "not known yet"
                return 1000 * (later.at - self.at)

        self.Event = Event

    def current_stream(self, device: object) -> SimpleNamespace:
        return self.current


def test_a_gpu_s_time_is_that_of_its_stream_and_nothing_waits_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    monkeypatch.setattr(timelines.torch.cuda, "Event", gpu.Event)
    monkeypatch.setattr(timelines.torch.cuda, "current_stream", gpu.current_stream)
    timeline = Timeline(torch.device("cuda", 0))
    with timeline("backward"):
        gpu.compute.now += 4
        gpu.current = gpu.side
        with timeline("communication"):  # overlaps
            gpu.side.now += 50
        gpu.current = gpu.compute
        with timeline("communication"):
            gpu.compute.now += 2
    timeline.end()
    assert not gpu.waited
    assert timeline.seconds() == {"other": 0.0, "backward": 4.0, "communication": 2.0}


def test_steps_that_are_not_timed_read_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines.time, "perf_counter", lambda: pytest.fail("a clock was read"))
    with untimed("forward"), untimed("backward"):
        pass
