"""Lines of a document -> its sentences, by rule.

One sentence per line is kept. Hard-wrapped lines are joined first; lines that hold several sentences are split.
"""

import re

_ABBREVIATIONS = frozenset(
    "mr mrs ms messrs dr prof rev hon st sr jr gen col capt lt sgt maj cmdr adm gov sen rep pres "
    "cf vs viz approx ca al resp inc ltd co corp bros dept est fig figs eq eqs sec secs ch vol vols no nos pp ed eds "
    "jan feb mar apr jun jul aug sep sept oct nov dec ph.d".split()
)
_BOUNDARY = re.compile(
    r"""[.!?。！？] (?:                                                # one class of characters to begin with: found at C's speed
        (?<= [.!?] ) (?<! [.!?][.!?] ) [.!?]* ["'”’)\]]* \s+ (?= ["'“‘(\[]* [^\W_a-z] )   # a stop, then space, then a capital or a digit
      | (?<= [。！？] ) [。！？]* ["”’」』）]*                         # no space is needed
    )""",
    re.VERBOSE,
)
_INITIALS = re.compile(r"(?:[A-Za-z]\.)*[A-Z]|[a-z](?:\.[a-z])+")
_LAST_WORD = re.compile(r"([^\s(\[\"'“‘]+)\.[\"'”’)\]]*\s*$")
_ENDS_SENTENCE = tuple(".!?:;\"'”’)]。！？…")
_WIDEST_WRAPPED_LINE = 160
_WRAPPED_SHARE = 0.2
_SEVERAL_SENTENCES_SHARE = 0.1


def split_sentences(text: str) -> list[str]:
    """The sentences of running text, stripped, in order; an empty list for blank text."""
    sentences, start = [], 0
    for boundary in _BOUNDARY.finditer(text):
        if not _ends_in_abbreviation(text, start, boundary.end()):
            sentences.append(text[start : boundary.end()].strip())
            start = boundary.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def sentences_of(lines: list[str]) -> list[str]:
    """The sentences of a document given as its lines, none of them blank."""
    lines = [stripped for line in lines if (stripped := line.strip())]
    if _is_hard_wrapped(lines):
        return split_sentences(" ".join(lines))
    pieces = [split_sentences(line) for line in lines]
    if sum(len(piece) > 1 for piece in pieces) > _SEVERAL_SENTENCES_SHARE * len(lines):
        return [sentence for piece in pieces for sentence in piece]
    return lines


def _ends_in_abbreviation(text: str, start: int, end: int) -> bool:
    last = _LAST_WORD.search(text, max(start, end - 40), end)
    if last is None:
        return False
    word = last.group(1)
    return word != "I" and (word.lower() in _ABBREVIATIONS or _INITIALS.fullmatch(word) is not None)


def _is_hard_wrapped(lines: list[str]) -> bool:
    """Whether enough line ends lie within a sentence, where the next word did not fit the line any more."""
    width = max(map(len, lines), default=0)
    if len(lines) < 2 or width > _WIDEST_WRAPPED_LINE:
        return False
    within = 0
    for line, following in zip(lines, lines[1:]):
        first_word_length = len(following.split(maxsplit=1)[0])
        no_room = len(line) + 1 + first_word_length > 0.85 * width
        within += no_room and following[0].islower() and not line.endswith(_ENDS_SENTENCE)
    return within >= _WRAPPED_SHARE * (len(lines) - 1)
