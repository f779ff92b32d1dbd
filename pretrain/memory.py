"""Bytes that each rank holds, by part, measured from the tensors themselves."""

import resource
from collections import Counter

import torch

from came.interval import Interval
from came.layouts import local
from pretrain.engine import Engine
from pretrain.storages import bytes_by_device


def memory_bytes(engine: Engine) -> dict[str, int]:
    """This rank's memory now, in bytes by part; every rank has the same parts, and those on the GPU, or in the host's memory where there
    is none, add up to `peak_bytes`.

    `weights_bytes`: the model's parameters and buffers, as they are kept between steps. `masters_bytes`: fp32 copies of them; 0 where
    the optimizer works on the weights. `grads_bytes`: the gradients at the last step that was logged, before it used them up.
    `optimizer_bytes`: the optimizer's state, of which `optimizer_<kind>_bytes` is one quantity, its rows, columns and
    scales included.
    `communication_bytes`: the buckets that DeepSpeed keeps from step to step. `peak_bytes`: the most that was ever allocated on the GPU
    or, on a CPU, the largest resident size of the process. The rest of it is `activations_bytes` on a GPU, with whatever else lived for a
    moment, and on a CPU `process_bytes`, with Python and its libraries. With `zero.offload=cpu` masters, gradients and state lie in the
    host's memory.
    """
    counted: set[int] = set()
    weights = bytes_by_device(engine.weights(), counted)
    masters = bytes_by_device((place.handed for place in engine.optimizer.places()), counted)
    communication = bytes_by_device(engine.communication_buffers(), counted)
    state = _state_bytes(engine)
    held = sum(state.values(), weights + masters + communication + engine.gradient_bytes)
    on_gpu, peak = engine.device.type == "cuda", _peak_bytes()
    return {
        "weights_bytes": weights.total(),
        "masters_bytes": masters.total(),
        "grads_bytes": engine.gradient_bytes.total(),
        "optimizer_bytes": sum(kind.total() for kind in state.values()),
        **{f"optimizer_{name}_bytes": kind.total() for name, kind in state.items()},
        "communication_bytes": communication.total(),
        "activations_bytes" if on_gpu else "process_bytes": max(0, peak - held[engine.device.type]),
        "peak_bytes": peak,
    }


def _state_bytes(engine: Engine) -> dict[str, Counter[str]]:
    """Bytes of each kind of state by type of device, of all kinds that the rule keeps of a matrix or a vector."""
    rule = engine.optimizer.rule
    names = [name for shape in ((2, 2), (2,)) for name in rule.state(Interval.whole(shape))]
    found: dict[str, Counter[str]] = {_kind(name): Counter() for name in names}
    for state in engine.optimizer.state.values():
        for name, value in state.items():
            found[_kind(name)][value.device.type] += local(value).numel() * value.element_size()
    return found


def _kind(name: str) -> str:
    """`exp_avg_sq` of `exp_avg_sq`, `exp_avg_sq_row` and `exp_avg_sq_col`; `exp_avg` of `exp_avg_scale`."""
    return name.removesuffix("_row").removesuffix("_col").removesuffix("_scale")


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
