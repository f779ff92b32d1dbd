"""Preparations that are killed, stopped, disturbed or doubled: nothing is lost and nothing wrong is published."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from pretrain import durable
from pretrain.data import preparation, segments
from pretrain.data import prepare as prepare_module
from pretrain.data.prepare import prepare
from pretrain.data.prepared import open_prepared
from pretrain.errors import Unfinished, UserError
from tests.unit.data.corpora import english, entries, text_config

PROCESS = """
    import sys
    from tests.unit.data.corpora import text_config
    from pathlib import Path
    from pretrain.data import prepare as module, segments
    segments.BATCH_CHARACTERS, segments.SEGMENT_CHARACTERS = 100, 500
    run = module.Preparation.run
    def slow_run(preparation):
        print("building", flush=True)
        {before}
        run(preparation)
    module.Preparation.run = slow_run
    print("folder", module.prepare(text_config(Path(sys.argv[1]))), flush=True)
"""


def start(tmp_path, before):
    code = textwrap.dedent(PROCESS.format(before=before))
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root, env=environment, text=True, **pipes)


def test_two_processes_at_once_prepare_once_and_the_second_says_that_it_waits(tmp_path):
    text_config(tmp_path)
    go = tmp_path / "go"
    first = start(tmp_path, f"import time; [time.sleep(0.01) for _ in iter(Path({str(go)!r}).exists, True)]")
    assert first.stdout.readline().strip() == "building"
    second = start(tmp_path, "pass")
    said = second.stderr.readline()
    assert "another process is preparing" in said and ".lock)" in said
    go.touch()
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert "building" not in outputs[1][0]
    assert len({output.split("folder ")[1] for output, _ in outputs}) == 1
    assert len(entries(tmp_path)) == 1


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_on_a_file_system_without_flock_the_first_process_begins_at_once(tmp_path, monkeypatch):
    def missing(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    begun = threading.Event()

    def work():
        with prepare_module._alone(tmp_path / "prepared", progress=False):
            begun.set()

    threading.Thread(target=work, daemon=True).start()
    assert begun.wait(20)


def kill_at(tmp_path, place):
    """Run a preparation that stops at `place`, and kill it there."""
    wait = "(print('reached', flush=True), time.sleep(60))"
    code = {
        "second segment": f"import time; flush = segments.durable.flush; "
        f"segments.durable.flush = lambda path: flush(path) if '0001.tmp' not in path.name else {wait}",
        "last flush": f"import time; segments.durable.flush_tree = lambda part: {wait} if part.name == 'result' else None",
    }[place]
    text_config(tmp_path)
    process = start(tmp_path, code)
    while (line := process.stdout.readline()) and line.strip() != "reached":
        pass
    assert line.strip() == "reached", process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("place", ["second segment", "last flush"])
def test_a_preparation_that_is_killed_goes_on_to_the_same_files(tmp_path, monkeypatch, capsys, place):
    undisturbed = open_prepared(prepare(text_config(tmp_path, cache_dir=str(tmp_path / "undisturbed")), progress=False)).fingerprint
    kill_at(tmp_path, place)
    assert [name.endswith(".part") for name in entries(tmp_path)] == [True]
    assert list((tmp_path / "cache").glob("*.part/units/*.npz"))

    tokenized = []
    tokenize = segments._UnitWriter._tokenize
    monkeypatch.setattr(segments._UnitWriter, "_tokenize", lambda writer: (tokenized.extend(writer._batch), tokenize(writer)))
    monkeypatch.setattr(preparation, "build_tokenizer", None)  # it was trained and kept
    folder = prepare(text_config(tmp_path))
    assert "going on with 1 source files" in capsys.readouterr().err
    assert open_prepared(folder).fingerprint == undisturbed
    assert (0 < len(tokenized) < 30) if place == "second segment" else tokenized == []
    assert entries(tmp_path) == [folder.name]


def test_a_torn_segment_is_made_again(tmp_path):
    undisturbed = open_prepared(prepare(text_config(tmp_path, cache_dir=str(tmp_path / "undisturbed")), progress=False)).fingerprint
    kill_at(tmp_path, "last flush")
    (last, *_) = sorted((tmp_path / "cache").glob("*.part/units/*.npz"), reverse=True)
    os.truncate(last, last.stat().st_size // 2)
    (done,) = (tmp_path / "cache").glob("*.part/units/*.json")
    done.unlink()
    assert open_prepared(prepare(text_config(tmp_path), progress=False)).fingerprint == undisturbed


def test_a_signal_that_stops_python_leaves_what_can_be_gone_on_with(tmp_path, monkeypatch):
    def interrupted(part):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable, "flush_tree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(text_config(tmp_path), progress=False)
    assert [name.endswith(".part") for name in entries(tmp_path)] == [True]
    folder = prepare(text_config(tmp_path), progress=False)
    assert entries(tmp_path) == [folder.name]


def test_an_unfinished_output_of_other_settings_is_not_gone_on_with(tmp_path, monkeypatch):
    output = tmp_path / "mine"
    with monkeypatch.context() as patched:
        patched.setattr(durable, "flush_tree", lambda part: (_ for _ in ()).throw(KeyboardInterrupt) if part.name == "result" else None)
        with pytest.raises(KeyboardInterrupt):
            prepare(text_config(tmp_path), output=output, progress=False)
    other = text_config(tmp_path, text=english(31), vocab_size=140)
    made = open_prepared(prepare(other, output=output, progress=False))
    assert made.vocab_size == 140 and made.fingerprint == open_prepared(prepare(other, progress=False)).fingerprint


def test_a_read_error_keeps_what_is_done(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text(english(10))
    (tmp_path / "b.txt").write_text(english(10, seed=1))
    settings = text_config(tmp_path, paths=[str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    monkeypatch.setattr(preparation, "UNIT_BYTES", 1)
    tokenize = segments.tokenize_unit

    def failing(unit, stem, recipe, on_bytes):
        if unit[0].name.endswith("b.txt"):
            raise Unfinished("b.txt cannot be read (Input/output error); mend that, and the same command goes on")
        tokenize(unit, stem, recipe, on_bytes)

    with monkeypatch.context() as patched:
        patched.setattr(segments, "tokenize_unit", failing)
        with pytest.raises(UserError, match="the same command goes on"):
            prepare(settings, progress=False)
    assert list((tmp_path / "cache").glob("*.part/units/000000.json"))
    open_prepared(prepare(settings, progress=False))


def test_a_corpus_that_changes_while_it_is_prepared_is_not_published(tmp_path, monkeypatch):
    settings = text_config(tmp_path)
    assembled = preparation.Preparation._assemble

    def change(self, sources):
        (tmp_path / "corpus.txt").write_text(english(31))
        return assembled(self, sources)

    monkeypatch.setattr(preparation.Preparation, "_assemble", change)
    with pytest.raises(UserError, match="the corpus was changed while it was prepared"):
        prepare(settings, progress=False)
    assert entries(tmp_path) == []
