"""Which documents are held out for validation."""

import hashlib
from collections.abc import Iterable, Iterator

from pretrain.data.corpus import Document
from pretrain.errors import UserError

TRAIN, VALID = "train", "valid"


def split_by_hash(documents: Iterable[Document], fraction: float) -> Iterator[tuple[str, Document]]:
    """Each document with its split: validation where the hash of its text, as a number in [0, 1), lies below `fraction`.

    Neither split stays empty. While all documents so far fall on one side, the one nearest to the other side is held back; it
    goes there if none comes by itself. A corpus of one document is cut in two, its tail of about `fraction` held out.
    """
    held: tuple[float, Document] | None = None
    both_filled = False
    num_given = 0
    for document in documents:
        current = (_number_of(document) - fraction, document)
        if held is not None and (held[0] < 0) != (current[0] < 0):
            both_filled = True
            yield _side(held), held[1]
            held = None
        if both_filled:
            yield _side(current), document
        elif held is None:
            held = current
        else:
            held, farther = sorted((held, current), key=lambda scored: abs(scored[0]))
            yield _side(farther), farther[1]
            num_given += 1
    if held is not None and num_given:
        yield (TRAIN if _side(held) == VALID else VALID), held[1]
    elif held is not None:
        yield from _cut(held[1], fraction)


def _number_of(document: Document) -> float:
    digest = hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _side(scored: tuple[float, Document]) -> str:
    return VALID if scored[0] < 0 else TRAIN


def _cut(document: Document, fraction: float) -> Iterator[tuple[str, Document]]:
    """The only document's head and tail: cut between lines, or within its only line between words."""
    whole_lines = len(document) > 1
    parts = document if whole_lines else document[0].split(" ")
    if len(parts) < 2:
        raise UserError("the corpus is a single word; give more text in data.paths")
    tail_length = min(len(parts) - 1, max(1, round(fraction * len(parts))))
    for split, piece in ((TRAIN, parts[:-tail_length]), (VALID, parts[-tail_length:])):
        yield split, piece if whole_lines else [" ".join(piece)]
