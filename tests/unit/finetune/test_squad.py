"""Windows over long texts, and answers that come back to the character."""

import json
import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from pretrain.config.compose import compose
from pretrain.errors import UserError
from pretrain.finetune import squad_data
from pretrain.finetune.question_answering import best_piece, question_tokens, windows
from pretrain.finetune.squad_data import Question
from tests.made_runs import BERT, make_tokenizer
from tests.unit.finetune.made_tasks import write_squad

LENGTH, STRIDE = 32, 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    letters = [f"{string.ascii_lowercase} {string.punctuation} {string.digits}"] * 9
    folder = make_tokenizer(compose([*BERT, "tokenizer.vocab_size=120"]), tmp_path_factory.mktemp("made") / "tokenizer", letters)
    return AutoTokenizer.from_pretrained(folder)


def questions(count: int) -> list[Question]:
    """Long texts with accents, capitals, punctuation and runs of spaces, and an answer of whole words anywhere in each."""
    rng = random.Random(0)
    made = []
    for index in range(count):
        words = [
            "".join(rng.choices("abcdeXY\u00c9\u00fc", k=rng.randint(1, 4))) + rng.choice(["", ",", ".", "!"])
            for _ in range(rng.randint(1, 60))
        ]
        first = rng.randrange(len(words))
        last = min(len(words), first + rng.randint(1, 3))
        spaces = [rng.choice([" ", "  ", "\n"]) for _ in words]
        start = sum(len(word) + len(space) for word, space in zip(words[:first], spaces[:first], strict=True))
        context = "".join(word + space for word, space in zip(words, spaces, strict=True))
        answer = "".join(word + space for word, space in zip(words[first:last], spaces[first:last], strict=True)).rstrip()
        made.append(Question(str(index), "who sees " * rng.randint(1, 30) + "it?", context, (answer,), (start,)))
    return made


@pytest.mark.parametrize(
    ("place", "value"), [(("answers", 0, "text"), 1945), (("question",), None), (("id",), 7), (("answers", 0, "answer_start"), "here")]
)
def test_a_file_of_other_types_is_refused_by_its_name(place: tuple, value: Any, tmp_path: Path) -> None:
    asked: Any = {"id": "a", "question": "When?", "answers": [{"text": "1945", "answer_start": 3}]}
    *way, name = place
    held = asked
    for step in way:
        held = held[step]
    held[name] = value
    path = tmp_path / "train-v1.1.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "In 1945.", "qas": [asked]}]}]}))
    with pytest.raises(UserError, match="is not in SQuAD's format"):
        squad_data.read_file(path)


def test_the_folder_around_the_files_will_do_but_its_own_files_come_first(tmp_path: Path) -> None:
    write_squad(tmp_path / "squad")
    assert squad_data.read(str(tmp_path)) == squad_data.read(str(tmp_path / "squad"))
    write_squad(tmp_path, train=3)
    assert len(squad_data.read(str(tmp_path))[0]) == 3


def test_the_windows_cover_the_text_and_hold_the_answer(tokenizer) -> None:
    asked = questions(60)
    made = windows(asked, tokenizer, LENGTH, STRIDE)
    assert all(len(window.row.input_ids) <= LENGTH for window in made)
    held = 0
    for place, question in enumerate(asked):
        own = [window for window in made if window.question == place]
        tokens = tokenizer(question.context, add_special_tokens=False, return_offsets_mapping=True)
        covered = {offset for window in own for offset in window.offsets}
        assert covered == set(map(tuple, tokens["offset_mapping"]))
        for before, after in zip(own, own[1:]):
            assert len(set(before.offsets) & set(after.offsets)) >= STRIDE
        for window in own:
            first, last = window.row.target
            ids = window.row.input_ids[window.first : window.first + len(window.offsets)]
            assert window.row.input_ids.index(tokenizer.sep_token_id) + 1 == window.first
            assert ids == [tokens["input_ids"][tokens["offset_mapping"].index(offset)] for offset in window.offsets]
            if (first, last) != (0, 0):
                begin, end = window.offsets[first - window.first][0], window.offsets[last - window.first][1]
                assert question.context[begin:end] == question.answers[0]
                held += 1
    assert held > 30


def test_the_best_piece_is_the_answer_to_the_character(tokenizer) -> None:
    asked = questions(60)
    for window in windows(asked, tokenizer, LENGTH, STRIDE):
        first, last = window.row.target
        starts, ends = np.zeros(LENGTH + 3, np.float32), np.zeros(LENGTH + 3, np.float32)  # padded
        starts[first], ends[last] = 5.0, 5.0
        starts[0], ends[0], ends[-1] = 9.0, 9.0, 9.0  # [CLS] and padding are no answers
        if first:
            assert best_piece(window, starts, ends, asked[window.question].context) == (10.0, asked[window.question].answers[0])


def test_the_best_piece_is_the_best_of_all_pieces(tokenizer) -> None:
    context = "a b c d e f g h i j k l m n o p q r s t " * 3
    window, *_ = windows([Question("q", "who?", context, ("a",), (0,))], tokenizer, 60, 8)
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts, ends = rng.normal(size=(2, 60)).astype(np.float32)
        count = len(window.offsets)
        pieces = [(window.first + a, window.first + b) for a in range(count) for b in range(a, min(count, a + 30))]
        first, last = max(pieces, key=lambda piece: starts[piece[0]] + ends[piece[1]])
        begin, end = window.offsets[first - window.first][0], window.offsets[last - window.first][1]
        assert best_piece(window, starts, ends, context) == (starts[first] + ends[last], context[begin:end])
    assert best_piece(window, np.full(60, np.nan), np.full(60, np.nan), "") == (-np.inf, "")


def test_a_long_question_is_cut(tokenizer) -> None:
    asked = [Question("q", "who sees it? " * 50, "a cat", ("cat",), (2,))]
    (window,) = windows(asked, tokenizer, LENGTH, STRIDE)
    assert window.first == question_tokens(LENGTH) + 2 and window.row.target != (0, 0)


def test_an_answer_with_space_around_it_is_found(tokenizer) -> None:
    (window,) = windows([Question("q", "who?", "see a cat now", (" cat ",), (5,))], tokenizer, LENGTH, STRIDE)
    first, last = (place - window.first for place in window.row.target)
    assert "see a cat now"[window.offsets[first][0] : window.offsets[last][1]] == "cat"
