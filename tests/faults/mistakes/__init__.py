"""Configurations and command lines with one mistake each, drawn at random: the same ones for the same seed.

A kind of mistake is a function that draws one; what a user's folder needs for it is written there.
"""

import random
from collections.abc import Callable

from tests.faults.mistakes.commands import bad_option, bad_prepare, bad_sample
from tests.faults.mistakes.files import bad_file, unreadable_file
from tests.faults.mistakes.mistake import Mistake
from tests.faults.mistakes.outside import missing_outside
from tests.faults.mistakes.settings import (
    contradiction,
    misspelt_group,
    misspelt_key,
    not_a_setting,
    out_of_range,
    strange_value,
    unknown_choice,
    unreadable_value,
    wrong_type,
)

KINDS: tuple[Callable[[random.Random], Mistake], ...] = (
    wrong_type,
    out_of_range,
    misspelt_key,
    misspelt_group,
    unknown_choice,
    strange_value,
    not_a_setting,
    unreadable_value,
    contradiction,
    bad_option,
    bad_file,
    unreadable_file,
    missing_outside,
    bad_prepare,
    bad_sample,
)


def draw(count: int, seed: int) -> list[Mistake]:
    """`count` different mistakes; every kind takes its turn."""
    rng, found = random.Random(seed), {}
    turn = 0
    while len(found) < count:
        mistake = KINDS[turn % len(KINDS)](rng)
        found.setdefault((mistake.command, mistake.arguments, *map(repr, mistake.files.items())), mistake)
        turn += 1
    return list(found.values())
