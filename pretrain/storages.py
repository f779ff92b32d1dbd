"""Bytes of memory behind tensors."""

from collections import Counter
from collections.abc import Iterable

from torch import Tensor


def bytes_by_device(tensors: Iterable[Tensor], counted: set[int] | None = None) -> Counter[str]:
    """Bytes by type of device (`cuda`, `cpu`). Storage that several tensors share counts once; what is in `counted`, by its address,
    does not count, and what does is added there."""
    counted = set() if counted is None else counted
    found: Counter[str] = Counter()
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes() and storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            found[tensor.device.type] += storage.nbytes()
    return found
