"""Which documents are held out for validation, and which are left out as copies: decided from the hashes of their texts alone."""

from collections.abc import Callable, Iterator

import numpy as np

TRAIN, VALID = "train", "valid"

_DOCUMENTS_AT_ONCE = 1 << 22


def held_out(digests: Iterator[np.ndarray], num_documents: int, fraction: float) -> np.ndarray:
    """Which documents of a source go to validation: those whose hash, as a number in [0, 1), lies below `fraction`.

    Neither split stays empty where there are two documents or more: the one nearest to the other side goes there.

    Args:
        digests: uint8 [documents, 16] arrays, in order.
        num_documents: rows of all of them.
        fraction: between 0 and 1.

    Returns:
        bool [num_documents].
    """
    valid = np.zeros(num_documents, dtype=bool)
    lowest, highest, start = (1.0, 0), (-1.0, 0), 0  # (number, document)
    for digest in digests:
        if len(digest):
            numbers = digest[:, :8].copy().view("<u8")[:, 0] / 2.0**64
            valid[start : start + len(digest)] = numbers < fraction
            lowest = min(lowest, (numbers.min(), start + int(numbers.argmin())))
            highest = max(highest, (numbers.max(), start + int(numbers.argmax())), key=lambda pair: pair[0])
            start += len(digest)
    if num_documents > 1 and not valid.any():
        valid[lowest[1]] = True
    elif num_documents > 1 and valid.all():
        valid[highest[1]] = False
    return valid


def copies(digests: Callable[[], Iterator[np.ndarray]], num_documents: int) -> np.ndarray:
    """Which documents have the same text as an earlier one, by their 128-bit hashes.

    The hashes are sorted in as many passes as keep memory bounded, each pass over those that begin alike.

    Args:
        digests: gives uint8 [documents, 16] arrays in order, from the beginning at each call.
        num_documents: rows of all of them.

    Returns:
        bool [num_documents].
    """
    found = np.zeros(num_documents, dtype=bool)
    num_passes = -(-num_documents // _DOCUMENTS_AT_ONCE) or 1
    for number in range(num_passes):
        rows, hashes, start = [], [], 0
        for digest in digests():
            mine = np.flatnonzero(digest[:, 8:].copy().view("<u8")[:, 0] % num_passes == number)
            rows.append(start + mine)
            hashes.append(np.ascontiguousarray(digest[mine]).view(f"V{digest.shape[1]}")[:, 0])
            start += len(digest)
        if rows:
            order = np.concatenate(rows)
            _, first = np.unique(np.concatenate(hashes), return_index=True)
            found[np.delete(order, first)] = True
    return found
