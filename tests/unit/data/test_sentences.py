from pretrain.data.sentences import sentences_of, split_sentences


def test_splits_at_stops_followed_by_a_new_sentence():
    assert split_sentences('He came. "Who is it?" she asked. Nobody! 3 of them left... Then silence.') == [
        "He came.",
        '"Who is it?" she asked.',
        "Nobody!",
        "3 of them left...",
        "Then silence.",
    ]


def test_does_not_split_at_abbreviations_initials_and_numbers():
    for sentence in (
        "Dr. Smith met Mr. J. R. Jones on Jan. 5 near St. Paul.",
        "It costs 3.50 dollars, i.e. Nothing much, cf. Table 4.",
        "He lived in the U.S. Virgin Islands.",
    ):
        assert split_sentences(sentence) == [sentence]


def test_splits_chinese_and_japanese_without_spaces():
    assert split_sentences("你好。再见！") == ["你好。", "再见！"]


def test_blank_text_has_no_sentences():
    assert split_sentences("  \n ") == []
    assert sentences_of([]) == []


def test_one_sentence_per_line_is_kept_even_where_the_rule_would_split():
    lines = [f"The {word} one is a sentence." for word in "first second third fourth fifth sixth seventh eighth ninth tenth".split()]
    lines += ["Yahoo! Inc. was founded in 1994.", "a heading without a stop"]
    assert sentences_of(lines) == lines


def test_hard_wrapped_lines_are_joined_before_splitting():
    lines = ["The evening brooded over the park and the", "gardens below the old house. A hush of", "moving light lay upon the lawn."]
    assert sentences_of(lines) == [
        "The evening brooded over the park and the gardens below the old house.",
        "A hush of moving light lay upon the lawn.",
    ]


def test_paragraph_per_line_is_split_within_lines():
    lines = ["One came. Two went.", "Three stayed. Four slept."]
    assert sentences_of(lines) == ["One came.", "Two went.", "Three stayed.", "Four slept."]


def test_verse_keeps_its_lines():
    lines = ["Shall I compare thee to a day,", "Thou art more lovely and more mild,", "Rough winds do shake the buds of May"]
    assert sentences_of(lines) == lines


def test_a_long_run_of_stops_takes_no_longer_than_other_text():
    """A million dots, found in one pass; the square of it would take hours."""
    text = "x" + "." * 1_000_000 + "x"
    assert split_sentences(text) == [text]
    assert split_sentences("Really?! Yes... No.") == ["Really?!", "Yes...", "No."]
