"""Text to ids and back: WordPiece as BERT has it, byte-level BPE as GPT-2 has it.

A tokenizer is trained on the corpus or read from vocabulary files, and saved in the form that transformers' AutoTokenizer
reads offline, where it gives the same ids. `tokenizers` is imported when it is first needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.config.schema import TokenizerConfig
from pretrain.data import tokenizer_files
from pretrain.data.tokenizer_files import PUBLISHED_VOCAB_SIZE
from pretrain.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDPIECE_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END_OF_TEXT = "<|endoftext|>"
_KIND_OF_FAMILY = {"bert": "wordpiece", "gpt2": "bpe"}
_FEWEST_OCCURRENCES = 2
_BYTES = 256
_LARGEST_ALPHABET = 1000


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens; None where the kind of tokenizer has none."""

    pad: int | None = None
    unk: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    eot: int | None = None

    def ids(self) -> list[int]:
        """Those that exist, ascending."""
        return sorted(value for value in asdict(self).values() if value is not None)


def tokenizer_kind(config: TokenizerConfig, family: str) -> str:
    """`wordpiece` or `bpe`; raises UserError where the kind asked for does not go with the model family."""
    kind = _KIND_OF_FAMILY[family]
    if config.kind not in ("auto", kind):
        raise UserError(f"tokenizer.kind={config.kind} does not go with model.family={family}; give tokenizer.kind={kind} or auto")
    return kind


def build_tokenizer(config: TokenizerConfig, kind: str, texts: Callable[[], Iterator[str]]) -> Tokenizer:
    """The tokenizer that `config` asks for.

    Args:
        config: `path`, or the size and case of one to train.
        kind: `wordpiece` or `bpe`.
        texts: gives the training text from its beginning at each call, in pieces of any size; not called where `path` is given.

    Raises:
        UserError: vocabulary files that are missing, broken, of the other kind or without the special tokens; a size that
            does not fit.
    """
    if config.path is not None:
        return _given(config, kind)
    vocab_size = config.vocab_size or PUBLISHED_VOCAB_SIZE[kind]
    return _train_wordpiece(texts, vocab_size, config.lowercase is not False) if kind == "wordpiece" else _train_bpe(texts, vocab_size)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in `folder`; `.encode(text).ids` and `.decode(ids)` need nothing but the `tokenizers` library."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens' ids in this tokenizer."""
    if type(tokenizer.model).__name__ == "BPE":
        return SpecialTokens(eot=tokenizer.token_to_id(END_OF_TEXT))
    return SpecialTokens(*map(tokenizer.token_to_id, WORDPIECE_SPECIALS))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, the vocabulary files and the configuration that AutoTokenizer looks for into a new folder."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    try:
        tokenizer.model.save(str(folder))
    except Exception as error:  # the library's word for an OSError
        raise OSError(str(error)) from error
    parts = json.loads(tokenizer.to_str())
    if type(tokenizer.model).__name__ == "WordPiece":
        named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), WORDPIECE_SPECIALS))
        normalizer = parts["normalizer"] or {}
        as_published = normalizer.get("type") == "BertNormalizer" and (parts["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        settings = {
            "tokenizer_class": "BertTokenizer" if as_published else "PreTrainedTokenizerFast",  # the latter takes tokenizer.json as it is
            "do_lower_case": normalizer.get("lowercase", False),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        }
    else:
        named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
        settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    settings["clean_up_tokenization_spaces"] = False
    for name, content in (("tokenizer_config.json", settings | named), ("special_tokens_map.json", named)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _wordpiece(vocab: dict[str, int], lowercase: bool) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    if "[CLS]" in vocab:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
        )
        tokenizer.add_special_tokens(list(WORDPIECE_SPECIALS))
    return tokenizer


def _bpe(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    if END_OF_TEXT in vocab:
        tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _train_wordpiece(texts: Callable[[], Iterator[str]], vocab_size: int, lowercase: bool) -> Tokenizer:
    """Read the text twice: the library numbers the `##` characters in the order of a hash map, which differs from process to
    process, so a first pass finds the alphabet and the second is given it in sorted order."""
    from tokenizers import trainers

    def trained_vocab(vocab_size: int, first: tuple[str, ...]) -> dict[str, int]:
        scratch = _wordpiece({}, lowercase)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=_FEWEST_OCCURRENCES,
            limit_alphabet=_LARGEST_ALPHABET,
            special_tokens=list(first),
            show_progress=False,
        )
        scratch.train_from_iterator(texts(), trainer)
        return scratch.get_vocab()

    alphabet = sorted(set(trained_vocab(0, WORDPIECE_SPECIALS)).difference(WORDPIECE_SPECIALS))
    least = len(WORDPIECE_SPECIALS) + len(alphabet)
    _check_trained_size(vocab_size, least, "wordpiece")
    return _wordpiece(trained_vocab(vocab_size, (*WORDPIECE_SPECIALS, *alphabet)), lowercase)


def _train_bpe(texts: Callable[[], Iterator[str]], vocab_size: int) -> Tokenizer:
    from tokenizers import pre_tokenizers, trainers

    check_bpe_size(vocab_size)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    scratch = _bpe({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_FEWEST_OCCURRENCES,
        initial_alphabet=alphabet,
        special_tokens=[END_OF_TEXT],
        show_progress=False,
    )
    scratch.train_from_iterator(texts(), trainer)
    model = json.loads(scratch.to_str())["model"]
    return _bpe(model["vocab"], [tuple(merge) for merge in model["merges"]])


def check_bpe_size(vocab_size: int) -> None:
    """Raise a UserError where a byte-level BPE cannot be so small, whatever the corpus."""
    _check_trained_size(vocab_size, 1 + _BYTES, "bpe")


def _check_trained_size(vocab_size: int, least: int, kind: str) -> None:
    if vocab_size < least:
        raise UserError(
            f"tokenizer.vocab_size={vocab_size} cannot hold the special tokens and the alphabet of a {kind} tokenizer on this corpus; "
            f"give {least} or more"
        )


def _given(config: TokenizerConfig, kind: str) -> Tokenizer:
    files = tokenizer_files.find(config.path, kind)
    try:
        tokenizer = _as_it_is(files.read_whole, kind) if files.read_whole else _from_vocabulary(config, kind, files)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer.path={config.path} cannot be read as a {kind} vocabulary ({error}); mend or replace it") from error
    except Exception as error:  # the library raises plain Exception, for example for a merge of unknown tokens
        raise UserError(f"tokenizer.path={config.path} is not a whole {kind} vocabulary ({error}); mend or replace the files") from error
    _check_given(config, kind, tokenizer)
    return tokenizer


def _as_it_is(files: tuple[Path, ...], kind: str) -> Tokenizer:
    """A tokenizer in Hugging Face format as transformers reads it, but for the cutting and padding that some are saved with."""
    from tokenizers import Tokenizer

    path, *configuration = files
    if configuration:  # it may overrule what tokenizer.json says
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path.parent, local_files_only=True).backend_tokenizer
    else:
        tokenizer = Tokenizer.from_file(str(path))
    found = type(tokenizer.model).__name__
    if found.lower() != kind:
        raise UserError(f"tokenizer.path: {path} holds a {found} tokenizer, this model needs {kind}; give another tokenizer or model")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_vocabulary(config: TokenizerConfig, kind: str, files: tokenizer_files.TokenizerFiles) -> Tokenizer:
    if kind == "bpe":
        vocab, merges = tokenizer_files.read_bpe(*files.vocabulary)
        _check_specials(config, kind, vocab)
        return _bpe(vocab, merges)
    vocab = tokenizer_files.read_wordpiece(files.vocabulary[0])
    _check_specials(config, kind, vocab)
    return _wordpiece(vocab, tokenizer_files.lowercase(config, files.lowercase))


def _check_specials(config: TokenizerConfig, kind: str, vocab: dict[str, int]) -> None:
    missing = [token for token in (WORDPIECE_SPECIALS if kind == "wordpiece" else (END_OF_TEXT,)) if token not in vocab]
    if missing:
        raise UserError(f"tokenizer.path={config.path} lacks {', '.join(missing)}; add them or give another {kind} vocabulary")


def _check_given(config: TokenizerConfig, kind: str, tokenizer: Tokenizer) -> None:
    vocab = tokenizer.get_vocab()
    _check_specials(config, kind, vocab)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise UserError(
            f"tokenizer.path={config.path} does not number its {len(vocab)} entries 0, 1, 2, ...; give another {kind} vocabulary"
        )
    if kind == "wordpiece" and tokenizer.model.unk_token not in vocab:
        raise UserError(f"tokenizer.path={config.path} lacks its own unknown token {tokenizer.model.unk_token}; add it")
    if kind == "bpe" and "ByteLevel" not in str(json.loads(tokenizer.to_str())["pre_tokenizer"]):
        raise UserError(f"tokenizer.path={config.path} is not byte-level as GPT-2's; give another tokenizer")
    if config.vocab_size not in (None, tokenizer.get_vocab_size()):
        raise UserError(
            f"tokenizer.vocab_size={config.vocab_size} but {config.path} has {tokenizer.get_vocab_size()} entries; leave tokenizer.vocab_size out"
        )
    own = (json.loads(tokenizer.to_str())["normalizer"] or {}).get("lowercase")
    if kind == "wordpiece" and config.lowercase is not None and own not in (None, config.lowercase):
        raise UserError(f"tokenizer.lowercase={config.lowercase} but {config.path} says {own}; leave tokenizer.lowercase out")
