import json

import pytest
from transformers import AutoTokenizer, BertTokenizerFast, GPT2TokenizerFast

from pretrain.config.schema import TokenizerConfig
from pretrain.data import tokenizer_files
from pretrain.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer, special_tokens, tokenizer_kind
from pretrain.errors import UserError
from tests.unit.data.corpora import english

TEXT = english(100)
SAMPLES = ["The river.", "A Čáslav windowpane [MASK] 東京 £5 don't", "  listen\n\n to   it\t", "<|endoftext|> again", "", "garden evening"]


def texts():
    return iter(TEXT.split("\n\n"))


def built(kind, **settings):
    return build_tokenizer(TokenizerConfig(**settings), kind, texts)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_trained_wordpiece_is_read_alike_by_transformers(tmp_path, lowercase):
    tokenizer = built("wordpiece", vocab_size=200, lowercase=lowercase)
    save_tokenizer(tokenizer, tmp_path / "t")
    auto = AutoTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    bert = BertTokenizerFast(vocab=str(tmp_path / "t" / "vocab.txt"), do_lower_case=lowercase)
    loaded = load_tokenizer(tmp_path / "t")
    for text in [*SAMPLES, *texts()]:
        assert tokenizer.encode(text).ids == loaded.encode(text).ids == auto(text)["input_ids"] == bert(text)["input_ids"]
    pair = auto("one", "two")
    assert (loaded.encode("one", "two").ids, loaded.encode("one", "two").type_ids) == (pair["input_ids"], pair["token_type_ids"])
    assert [auto.pad_token_id, auto.unk_token_id, auto.cls_token_id, auto.sep_token_id, auto.mask_token_id] == [0, 1, 2, 3, 4]
    assert special_tokens(loaded).ids() == [0, 1, 2, 3, 4]
    assert auto.decode(loaded.encode("the river", add_special_tokens=False).ids) == "the river"
    assert loaded.decode(loaded.encode("the river").ids) == "the river"


def test_a_trained_bpe_is_read_alike_by_transformers(tmp_path):
    tokenizer = built("bpe", vocab_size=350)
    save_tokenizer(tokenizer, tmp_path / "t")
    auto = AutoTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    gpt2 = GPT2TokenizerFast(vocab=str(tmp_path / "t" / "vocab.json"), merges=str(tmp_path / "t" / "merges.txt"))
    loaded = load_tokenizer(tmp_path / "t")
    for text in [*SAMPLES, *texts()]:
        ids = loaded.encode(text).ids
        assert tokenizer.encode(text).ids == ids == auto(text)["input_ids"] == gpt2(text)["input_ids"]
        assert loaded.decode(ids, skip_special_tokens=False) == auto.decode(ids) == text
    assert auto.eos_token_id == special_tokens(loaded).eot == loaded.token_to_id("<|endoftext|>")
    assert special_tokens(loaded).ids() == [special_tokens(loaded).eot]


@pytest.mark.parametrize("kind, vocab_size", [("wordpiece", 150), ("bpe", 350)])
def test_training_gives_the_size_asked_for_and_the_same_ids_every_time(kind, vocab_size):
    first = built(kind, vocab_size=vocab_size)
    assert first.get_vocab_size() == vocab_size
    for _ in range(3):
        assert built(kind, vocab_size=vocab_size).to_str() == first.to_str()


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_size_below_the_alphabet_is_refused_with_the_least_that_fits(kind):
    with pytest.raises(UserError, match="give [0-9]+ or more") as caught:
        built(kind, vocab_size=20)
    least = int(str(caught.value).split("give ")[1].split(" ")[0])
    assert built(kind, vocab_size=least).get_vocab_size() == least
    with pytest.raises(UserError, match=f"give {least} or more"):
        built(kind, vocab_size=least - 1)


def write_bpe(folder, vocab_name="vocab.json", merges_name="merges.txt", **extra):
    folder.mkdir(exist_ok=True)
    vocab = {token: index for index, token in enumerate(["<|endoftext|>", "a", "b", "ab", "abab"])}
    (folder / vocab_name).write_text(json.dumps(vocab | extra))
    (folder / merges_name).write_text("#version: 0.2\na b\nab ab\n")


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_bpe_files_are_found_by_folder_or_by_name(tmp_path, names):
    write_bpe(tmp_path, *names)
    write_bpe(tmp_path, *(f"gpt2-{name}" for name in names))
    for path in (tmp_path, tmp_path / names[0], tmp_path / f"gpt2-{names[0]}"):
        tokenizer = built("bpe", path=str(path), vocab_size=5)
        assert tokenizer.encode("ababab").ids == [4, 3]


def write_wordpiece(path, *tokens):
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "##s", *tokens]) + "\n")
    return path


def test_a_vocab_txt_is_read(tmp_path):
    path = write_wordpiece(tmp_path / "vocab.txt")
    for given in (path, tmp_path):
        assert built("wordpiece", path=str(given)).encode("Rivers stone").ids == [2, 5, 6, 1, 3]


def test_vocabularies_that_do_not_fit(tmp_path):
    wordpiece = write_wordpiece(tmp_path / "vocab.txt")
    write_bpe(tmp_path / "bpe")
    (tmp_path / "few.txt").write_text("[PAD]\n[UNK]\nriver\n")
    (tmp_path / "twice.txt").write_text("[PAD]\nriver\nriver\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    write_bpe(tmp_path / "gap", extra=77)
    write_bpe(tmp_path / "lists", extra=[1])
    write_bpe(tmp_path / "plain")
    (tmp_path / "plain" / "vocab.json").write_text('{"a": 0, "b": 1}')
    write_bpe(tmp_path / "unknown")
    (tmp_path / "unknown" / "merges.txt").write_text("a z\n")
    write_bpe(tmp_path / "three")
    (tmp_path / "three" / "merges.txt").write_text("a b c\n")
    write_bpe(tmp_path / "alone")
    (tmp_path / "alone" / "merges.txt").unlink()
    for kind, name, message in (
        ("wordpiece", "missing.txt", "does not exist; give a folder in Hugging Face format, a vocab.txt"),
        ("wordpiece", "few.txt", r"lacks \[CLS\], \[SEP\], \[MASK\]; add"),
        ("wordpiece", "twice.txt", "line 3 repeats 'river'"),
        ("wordpiece", "latin.txt", "cannot be read as a wordpiece vocabulary"),
        ("wordpiece", "bpe", "is not a wordpiece vocabulary; give a folder in Hugging Face format, a vocab.txt"),
        ("bpe", wordpiece.name, "is not a bpe vocabulary; give a folder in Hugging Face format, one with vocab.json and merges.txt"),
        ("bpe", "alone", "is not a bpe vocabulary"),
        ("bpe", "gap", "does not map tokens to the ids 0, 1, 2"),
        ("bpe", "lists", "does not map tokens to the ids 0, 1, 2"),
        ("bpe", "plain", "endoftext"),
        ("bpe", "unknown", "is not a whole bpe vocabulary"),
        ("bpe", "three", "line 1 of merges.txt is not two tokens"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            built(kind, path=str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="tokenizer.vocab_size=9 but .* has 7 entries"):
        built("wordpiece", path=str(wordpiece), vocab_size=9)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_hugging_face_folder_is_taken_as_it_is(tmp_path, lowercase):
    vocab = write_wordpiece(tmp_path / "vocab.txt", "River", "é", "e")
    theirs = BertTokenizerFast(vocab=str(vocab), do_lower_case=lowercase)
    theirs.save_pretrained(tmp_path / "theirs")
    saved = json.loads((tmp_path / "theirs" / "tokenizer.json").read_text())
    saved["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "theirs" / "tokenizer.json").write_text(json.dumps(saved))
    ours = built("wordpiece", path=str(tmp_path / "theirs"))
    save_tokenizer(ours, tmp_path / "ours")
    again = AutoTokenizer.from_pretrained(tmp_path / "ours", local_files_only=True)
    for text in ("River rivers é river river", "[MASK] river"):
        assert ours.encode(text).ids == theirs(text)["input_ids"] == again(text)["input_ids"]
    with pytest.raises(UserError, match=f"tokenizer.lowercase={not lowercase} but .* says {lowercase}; leave"):
        built("wordpiece", path=str(tmp_path / "theirs"), lowercase=not lowercase)
    with pytest.raises(UserError, match="holds a WordPiece tokenizer, this model needs bpe"):
        built("bpe", path=str(tmp_path / "theirs"))


def test_a_vocabulary_with_a_configuration_beside_it_has_its_casing(tmp_path):
    write_wordpiece(tmp_path / "vocab.txt", "River")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    river = 7
    assert built("wordpiece", path=str(tmp_path)).encode("River", add_special_tokens=False).ids == [river]
    assert built("wordpiece", path=str(tmp_path), lowercase=True).encode("River", add_special_tokens=False).ids == [5]


def test_a_name_on_the_hub_is_downloaded_once_and_found_without_a_network_afterwards(tmp_path, monkeypatch):
    """The hub's cache as a download leaves it; the suite has no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        UserError, match="tokenizer.path=some/bert is no file or folder here and cannot be had from the hub .*; give a folder"
    ):
        built("wordpiece", path="some/bert")
    snapshot = tmp_path / "hub" / "models--some--bert" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    write_wordpiece(snapshot / "vocab.txt")
    assert built("wordpiece", path="some/bert").encode("Rivers").ids == [2, 5, 6, 3]


def test_the_kind_follows_the_model():
    assert [tokenizer_kind(TokenizerConfig(), family) for family in ("bert", "gpt2")] == ["wordpiece", "bpe"]
    with pytest.raises(UserError, match="tokenizer.kind=bpe does not go with model.family=bert; give tokenizer.kind=wordpiece or auto"):
        tokenizer_kind(TokenizerConfig(kind="bpe"), "bert")


def test_what_makes_no_vocabulary_is_one_line(tmp_path):
    good = built("wordpiece", path=str(write_wordpiece(tmp_path / "vocab.txt")))
    for name, change, message in (
        ("gap", lambda model: model["vocab"].update(river=70_000), "does not number its 7 entries 0, 1, 2"),
        ("unk", lambda model: model.update(unk_token="[NOTHING]"), "lacks its own unknown token"),
    ):
        saved = json.loads(good.to_str())
        change(saved["model"])
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(saved))
        with pytest.raises(UserError, match=message):
            built("wordpiece", path=str(tmp_path / name))


def test_the_configuration_beside_a_tokenizer_overrules_it_as_in_transformers(tmp_path):
    vocab = write_wordpiece(tmp_path / "vocab.txt", "River")
    BertTokenizerFast(vocab=str(vocab), do_lower_case=True).save_pretrained(tmp_path / "t")
    settings = json.loads((tmp_path / "t" / "tokenizer_config.json").read_text())
    (tmp_path / "t" / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    theirs = AutoTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    ours = built("wordpiece", path=str(tmp_path / "t"))
    assert ours.encode("River river").ids == theirs("River river")["input_ids"]
    assert tokenizer_files.identity(TokenizerConfig(path=str(tmp_path)), "wordpiece") != tokenizer_files.identity(
        TokenizerConfig(path=str(tmp_path), lowercase=False), "wordpiece"
    )
