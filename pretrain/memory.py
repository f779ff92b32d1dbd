"""Bytes that this rank holds, by part, measured from the tensors themselves."""

import resource
from collections.abc import Iterable

import torch
from torch import Tensor

from pretrain.engine import Engine


def memory_bytes(engine: Engine) -> dict[str, int]:
    """This rank's memory now, in bytes.

    `memory_params_bytes`: the model's weights as they are kept between steps, and the fp32 masters. `memory_grads_bytes`: gradients
    at the last step. `memory_optimizer_bytes`: the optimizer's state. `memory_peak_bytes`: the most that was ever allocated on the
    GPU or, on a CPU, the largest resident size of the process.
    """
    masters = [place.handed for place in engine.optimizer.places()]
    weights = [getattr(param, "ds_tensor", param) for param in engine.model.parameters()]
    return {
        "memory_params_bytes": storage_bytes([*weights, *masters]),
        "memory_grads_bytes": engine.gradient_bytes,
        "memory_optimizer_bytes": engine.optimizer.state_bytes(),
        "memory_peak_bytes": _peak_bytes(),
    }


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes behind the tensors, storage that several of them share counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
