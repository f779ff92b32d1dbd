"""One corpus being prepared: its tokenizer made, its text tokenized on all cores, the token files and the manifest written."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain import durable
from pretrain.config.schema import Config
from pretrain.data.corpus import Source, Text
from pretrain.data.hub import HubShard
from pretrain.data.manifest import TOKENIZER_FOLDER, describe, make_manifest, write_manifest
from pretrain.data.parts import Part
from pretrain.data.progress import Progress
from pretrain.data.reading import PACKED
from pretrain.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer, special_tokens
from pretrain.errors import Unfinished, UserError

if TYPE_CHECKING:
    from pretrain.data.assemble import AssembledSource, TokenizedSource, TokenizedText
    from pretrain.data.segments import Recipe

UNIT_BYTES = 1 << 23
"""Small parts are taken together until they have this size on disk, packed ones counted as what they unpack to."""

_PACKED_TIMES = 3
_SMALL_BYTES = 1 << 25
"""Up to here new processes cost more than they save; the tokenizers library has its own threads."""


class Preparation:
    """One corpus on its way into `folder`. Runs with the lock held, so what lies half-made beside it belongs to a process that is dead."""

    def __init__(
        self,
        config: Config,
        sources: Sequence[Source],
        settings: dict[str, Any],
        folder: Path,
        unchanged: Callable[[], bool],
        progress: bool,
    ) -> None:
        self._config, self._sources, self._settings, self._progress = config, sources, settings, progress
        self._kind = settings["tokenizer_kind"]
        self._unchanged = unchanged
        self._folder, self._part = folder, folder.with_name(folder.name + ".part")
        self._result, self._units = self._part / "result", self._part / "units"
        self._tokenizer_folder = self._part / TOKENIZER_FOLDER

    def run(self) -> None:
        from pretrain.data import assemble

        parts = {text.key: text.parts() for source in self._sources for text in source.texts()}
        self._take_the_part_folder()
        try:
            self._say_what_comes([part for several in parts.values() for part in several])
            self._make_tokenizer(parts)
            texts = self._tokenize(parts)
            sources = [
                assemble.TokenizedSource(source.name, texts[source.train.key], texts[source.valid.key] if source.valid else None)
                for source in self._sources
            ]
            self._finish(self._assemble(sources))
        except UserError as error:
            if not isinstance(error, Unfinished):  # there is nothing to go on with
                shutil.rmtree(self._part, ignore_errors=True)
            raise

    def _take_the_part_folder(self) -> None:
        """What lies there is gone on with where it was made with the same settings from the same text, and thrown away where not."""
        said = self._part / "settings.json"
        wanted = json.dumps(self._settings, sort_keys=True)
        if self._part.exists() and any(self._part.iterdir()):
            if not said.exists():
                raise UserError(f"{self._part} is needed for the preparation and is not one of its own; move it away")
            if said.read_text(encoding="utf-8") != wanted:
                shutil.rmtree(self._part)
        self._part.mkdir(parents=True, exist_ok=True)
        durable.write(said, wanted)
        self._units.mkdir(exist_ok=True)

    def _say_what_comes(self, parts: Sequence[Part]) -> None:
        size = sum(part.size_bytes for part in parts)
        num_sources = len({part.name for part in parts})
        verb = "going on with" if self._units.exists() and any(self._units.iterdir()) else "preparing"
        self._say(f"{verb} {num_sources:,} source files ({size / 1e6:,.1f} MB) in {self._folder}")

    def _make_tokenizer(self, parts: dict[str, list[Part]]) -> None:
        """Trained or read, saved once: a preparation that goes on takes the one that it finds."""
        if self._tokenizer_folder.exists():
            return
        training = [part for source in self._sources for part in parts[source.train.key]]
        tokenizer = build_tokenizer(self._config.tokenizer, self._kind, lambda: self._training_texts(training))
        temporary = self._part / "tokenizer.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        save_tokenizer(tokenizer, temporary)
        durable.flush_tree(temporary)
        temporary.rename(self._tokenizer_folder)

    def _training_texts(self, parts: Sequence[Part]) -> Iterator[str]:
        """The text for training a tokenizer: where the corpus is larger, the same amount from the beginning of each part."""
        from pretrain.data.reading import ReadLog

        share = self._config.tokenizer.training_megabytes * 1_000_000 // max(len(parts), 1)
        total = sum(min(part.size_bytes, share) for part in parts)
        empty = True
        with Progress("training the tokenizer", total, self._progress) as bar:
            for part in parts:
                taken = 0
                for document in part.documents(ReadLog(part.name, on_bytes=bar.advance)):
                    empty = False
                    yield document
                    taken += len(document)
                    if taken >= share:
                        break
        if empty:
            raise _no_text(self._sources[0].train, parts)

    def _tokenize(self, parts: dict[str, list[Part]]) -> dict[str, TokenizedText]:
        """All parts as segments, by the key of their text."""
        from pretrain.data.assemble import TokenizedText
        from pretrain.data.parallel import for_each
        from pretrain.data.segments import tokenize_unit

        texts: dict[str, TokenizedText] = {}
        jobs = []
        recipe = self._recipe()
        for key, several in parts.items():
            units = _units(several)
            stems = [self._units / f"{len(jobs) + number:06d}" for number in range(len(units))]
            jobs += [(unit, stem, recipe) for unit, stem in zip(units, stems, strict=True)]
            texts[key] = TokenizedText(stems)
        everything = [part for unit, *_ in jobs for part in unit]
        with Progress("tokenizing", sum(part.size_bytes for part in everything), self._progress) as bar:
            if sum(map(_weight, everything)) <= _SMALL_BYTES:
                for job in jobs:
                    tokenize_unit(*job, bar.advance)
            else:
                largest_first = sorted(jobs, key=lambda job: -sum(map(_weight, job[0])))
                for_each(tokenize_unit, largest_first, bar.advance)
        return texts

    def _recipe(self) -> Recipe:
        from pretrain.data.segments import Recipe

        file = self._tokenizer_folder / "tokenizer.json"
        end_of_document = special_tokens(load_tokenizer(file.parent)).eot
        return Recipe(file, self._kind == "wordpiece", end_of_document, self._config.data.min_document_characters)

    def _assemble(self, sources: Sequence[TokenizedSource]) -> list[AssembledSource]:
        from pretrain.data import assemble
        from pretrain.data.splitting import TRAIN, VALID

        shutil.rmtree(self._result, ignore_errors=True)
        shutil.copytree(self._tokenizer_folder, self._result / TOKENIZER_FOLDER)
        tokenizer = load_tokenizer(self._tokenizer_folder)
        left_out = self._copies(sources)
        assembled = []
        total = sum(path.stat().st_size for path in self._units.glob("*.npz"))
        with Progress("writing", total, self._progress) as bar:
            for tokenized, source in zip(sources, self._sources, strict=True):
                mine = [left_out.pop(0) for _ in tokenized.texts()]
                assembled.append(
                    assemble.assemble(
                        tokenized,
                        mine,
                        self._result / source.name,
                        tokenizer.get_vocab_size(),
                        self._config.data.validation_fraction,
                        special_tokens(tokenizer).eot,
                        bar,
                    )
                )
                for split, text in ((TRAIN, source.train), (VALID, source.valid or source.train)):
                    if not assembled[-1].writers[split].counts["tokens"]:
                        raise _no_text(text, text.parts())
        return assembled

    def _copies(self, sources: Sequence[TokenizedSource]) -> list:
        import numpy as np

        from pretrain.data.assemble import copies_in

        if self._config.data.deduplicate:
            return copies_in(sources)
        return [np.zeros(text.num_documents(), dtype=bool) for source in sources for text in source.texts()]

    def _finish(self, assembled: Sequence[AssembledSource]) -> None:
        """Write what goes with the tokens, give the folder its name, and say what was done."""
        import numpy as np

        checksums = {path.relative_to(self._result).as_posix(): digest for source in assembled for path, digest in source.checksums.items()}
        for source in assembled:
            np.save(self._result / source.name / "unigram.npy", source.writers["train"].unigram_counts)
        for path in [*self._result.glob("*/unigram.npy"), *(self._result / TOKENIZER_FOLDER).iterdir()]:
            checksums[path.relative_to(self._result).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest = make_manifest(self._result, self._settings, self._sources, assembled, checksums)
        write_manifest(self._result, manifest)
        durable.flush_tree(self._result)
        if not self._unchanged():
            raise UserError("the corpus was changed while it was prepared; prepare it again when it stands still")
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._result.rename(self._folder)
        durable.flush(self._folder.parent)
        shutil.rmtree(self._part, ignore_errors=True)
        for line in describe(manifest):
            self._say(line)

    def _say(self, text: str) -> None:
        if self._progress:
            print(text, file=sys.stderr, flush=True)


def _units(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts in order, the small ones together; the same for the same parts on any machine."""
    units: list[list[Part]] = []
    size = UNIT_BYTES
    for part in parts:
        if size >= UNIT_BYTES:
            units.append([])
            size = 0
        units[-1].append(part)
        size += _weight(part)
    return units


def _weight(part: Part) -> int:
    """Bytes of text, about; a shard of unknown size counts as a unit."""
    if isinstance(part, HubShard):
        return part.size_bytes or UNIT_BYTES
    return part.size_bytes * (_PACKED_TIMES if part.name.endswith(PACKED) else 1)


def _no_text(text: Text, parts: Sequence[Part]) -> UserError:
    size = sum(part.size_bytes for part in parts)
    return UserError(f"{text.key} holds no text ({len(parts)} files, {size} bytes on disk); give files with text in them")
