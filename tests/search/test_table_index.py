"""The index of a table: made once, made anew when an input changes or a file is damaged; a user's files stay."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from patsim_utils import storage
from patsim_utils.errors import InputError
from patsim_utils.search import evaluation
from patsim_utils.search import index as index_module
from patsim_utils.search.index import Index
from patsim_utils.search.table_index import open_index

LINES = ["phrase,context,id", "steel,E04,1", "iron bar,E04,2", "wireless handset,H04,3", "antenna,,4"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "phrases.csv"
    path.write_text("\n".join(LINES))
    return path


@pytest.fixture
def added(monkeypatch) -> list[int]:
    """How many rows each call of `Index.add` gets."""
    counts = []
    add = Index.add

    def counting(self: Index, frame: pd.DataFrame, **options: object) -> None:
        counts.append(len(frame))
        add(self, frame, **options)

    monkeypatch.setattr(Index, "add", counting)
    return counts


def files(folder: Path) -> list[str]:
    """What lies in a folder, apart from locks, which the file system may keep."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_an_index_is_made_once_and_anew_when_an_input_changes(small_retriever, table, added, tmp_path) -> None:
    retriever = tmp_path / "retriever"
    shutil.copytree(small_retriever, retriever)
    for _ in range(2):
        assert len(open_index(table, retriever=str(retriever))) == 4
    assert added == [4]
    times = table.stat().st_atime_ns, table.stat().st_mtime_ns
    table.write_text(table.read_text().replace("steel", "wheel"))  # of the same size
    os.utime(table, ns=times)
    assert "wheel" in open_index(table, retriever=str(retriever)).candidates("wheel")["phrase"].to_list()
    assert added == [4, 4]
    pooling = retriever / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('"mean"', '"cls"'))
    index = open_index(table, retriever=str(retriever))
    assert index.candidates("wheel")["similarity"][0] == pytest.approx(1, abs=1e-3)
    assert added == [4, 4, 4]
    assert files(tmp_path) == ["phrases.csv", "phrases.csv.index", "retriever"]


def test_a_stopped_making_is_gone_on_with(small_retriever, table, added, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "CHUNK", 3)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_index(table, retriever=str(small_retriever), progress=stop)
    assert not (tmp_path / "phrases.csv.index").exists()
    index = open_index(table, retriever=str(small_retriever))
    assert index.whole().rows["id"].tolist() == ["1", "2", "3", "4"]
    assert added == [4, 1]
    assert files(tmp_path) == ["phrases.csv", "phrases.csv.index"]


def test_a_kill_within_the_last_steps_leaves_nothing(small_retriever, table, added, tmp_path, monkeypatch) -> None:
    fresh = storage.companion(table.with_name("phrases.csv.index"), "new")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("patsim_utils.search.table_index._finish", killed)
        with pytest.raises(KeyboardInterrupt):
            open_index(table, retriever=str(small_retriever))
    half = storage.temporary(fresh / "corpus.json")
    half.write_text("half")
    os.utime(half, (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_discard", killed)
        with pytest.raises(KeyboardInterrupt):
            open_index(table, retriever=str(small_retriever))
    assert list(tmp_path.glob(".*.swap"))
    assert len(open_index(table, retriever=str(small_retriever))) == 4
    assert added == [4, 0]
    assert files(tmp_path) == ["phrases.csv", "phrases.csv.index"]
    assert files(tmp_path / "phrases.csv.index") == ["corpus.json", "index.json", "phrases.arrow", "phrases.lance"]


@pytest.mark.parametrize("change", ["cut", "other table", "other rows"])
def test_an_unfinished_index_is_not_taken_for_whole(small_retriever, table, added, monkeypatch, change) -> None:
    monkeypatch.setattr(index_module, "CHUNK", 3)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_index(table, retriever=str(small_retriever), progress=stop)
    fresh = storage.companion(table.with_name("phrases.csv.index"), "new")
    if change == "cut":
        for path in (fresh / "phrases.lance" / "data").iterdir():
            os.truncate(path, 100)
    elif change == "other rows":
        Index(fresh, retriever=str(small_retriever)).add(pd.DataFrame({"phrase": ["x"], "id": ["9"]}))
    else:
        table.write_text(table.read_text().replace("steel", "wheel"))
    index = open_index(table, retriever=str(small_retriever))
    assert index.whole().rows["id"].tolist() == ["1", "2", "3", "4"]
    assert added[-1] == 4


DAMAGED = ["phrases.lance/data/*", "phrases.lance/_versions/*", "phrases.arrow", "corpus.json"]


@pytest.mark.parametrize("victim", DAMAGED)
def test_a_damaged_index_is_made_anew(small_retriever, table, added, victim) -> None:
    folder = open_index(table, retriever=str(small_retriever)).folder
    for path in folder.glob(victim):
        os.truncate(path, 10)
    assert len(open_index(table, retriever=str(small_retriever)).candidates("steel")) == 4
    assert added == [4, 4]


def test_a_bit_that_changed_in_what_is_searched_makes_the_index_anew(small_retriever, table, added) -> None:
    folder = open_index(table, retriever=str(small_retriever)).folder
    copy = folder / "phrases.arrow"
    right = copy.read_bytes()
    times = copy.stat().st_atime_ns, copy.stat().st_mtime_ns
    copy.write_bytes(right.replace(b"steel", b"wheel"))
    os.utime(copy, ns=times)
    assert "steel" in open_index(table, retriever=str(small_retriever)).candidates("steel")["phrase"].to_list()
    assert added == [4, 4]


def test_a_table_whose_index_would_have_too_long_a_name_is_refused_at_once(small_retriever, tmp_path, added) -> None:
    table = tmp_path / f"{'a' * 249}.csv"
    table.write_text("phrase\nsteel\n")
    with pytest.raises(InputError, match="its name is too long for an index beside it; give it a shorter one"):
        open_index(table, retriever=str(small_retriever))
    assert files(tmp_path) == [table.name]
    assert added == []


@pytest.mark.parametrize("victim", ["phrases.lance/data/*", "phrases.arrow"])
def test_a_damaged_index_that_is_named_is_one_line_with_a_way_out(small_retriever, tmp_path, victim) -> None:
    index = Index(tmp_path, retriever=str(small_retriever), create=True)
    index.add(pd.DataFrame({"phrase": ["steel", "wood"]}))
    if victim != "phrases.arrow":
        (tmp_path / "phrases.arrow").unlink()
    for path in tmp_path.glob(victim):
        os.truncate(path, 100)
    with pytest.raises(OSError, match="cannot be read or written .* delete that folder"):
        Index(tmp_path, retriever=str(small_retriever)).candidates("steel")


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "another note", "file in an index", "file below"])
def test_what_a_user_made_is_refused_and_stays(small_retriever, table, tmp_path, kind) -> None:
    folder = tmp_path / "phrases.csv.index"
    kept = folder / "notes.txt"
    if kind == "file":
        folder.write_text("keep")
        kept = folder
    elif kind in ("file in an index", "file below"):
        open_index(table, retriever=str(small_retriever))
        table.write_text("phrase\nwood\n")
        if kind == "file below":
            kept = folder / "phrases.lance" / "data" / "notes.txt"
        kept.write_text("keep")
    else:
        folder.mkdir()
        if kind != "empty folder":
            kept.write_text("keep")
        if kind == "another note":
            (folder / "index.json").write_text('{"a": 1}')
    before = files(tmp_path)
    with pytest.raises(InputError, match="phrases.csv.index"):
        open_index(table, retriever=str(small_retriever))
    assert files(tmp_path) == before
    if kind != "empty folder":
        assert kept.read_text() == "keep"


def test_a_folder_called_old_stays(small_retriever, table, tmp_path) -> None:
    kept = tmp_path / "phrases.csv.index.old" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("keep")
    for phrase in ("wood", "paper"):
        table.write_text(f"phrase\n{phrase}\n")
        open_index(table, retriever=str(small_retriever))
    assert kept.read_text() == "keep"


def test_tables_whose_names_begin_alike_have_an_index_each(small_retriever, tmp_path, monkeypatch) -> None:
    tables = [tmp_path / f"{'long' * 15}{number}.csv" for number in (1, 2)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for path in tables:
        path.write_text("phrase\nsteel\nwood\n")
        with pytest.raises(KeyboardInterrupt):
            open_index(path, retriever=str(small_retriever), progress=stop)
    assert len([name for name in files(tmp_path) if name.endswith(".new")]) == 2


def test_a_table_whose_folder_cannot_be_written_is_indexed_in_the_cache(
    small_retriever, table, added, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        for _ in range(2):
            index = open_index(table, retriever=str(small_retriever))
    assert tmp_path / "cache" in index.folder.parents
    with table.open() as file:  # as /dev/stdin is a link to it
        linked = open_index(Path(f"/proc/self/fd/{file.fileno()}"), retriever=str(small_retriever))
    assert tmp_path / "cache" in linked.folder.parents
    assert files(tmp_path) == ["cache", "phrases.csv"]


@pytest.mark.parametrize("kind", ["pipe", "empty", "unloadable"])
def test_a_corpus_or_retriever_that_is_refused_leaves_nothing_behind(small_retriever, tmp_path, kind) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "phrases.csv"
    retriever = small_retriever
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.write_text("phrase\n")
    else:
        path.write_text("phrase\nsteel\n")
        retriever = tmp_path / "retriever"
        retriever.mkdir()
        (retriever / "model.safetensors").write_text("no weights")
    with pytest.raises(InputError):
        open_index(path, retriever=str(retriever))
    assert [entry.name for entry in folder.iterdir()] == ["phrases.csv"]


def test_an_index_of_names_that_only_a_database_minds_is_an_answer(small_retriever, tmp_path) -> None:
    names = ["*", "`x`", "a`b", "it's", 'a"b', "Patent No.", "_id", "vector", "column_0", "ID", "id"]
    values = {name: [f"{number}", "", "-"] for number, name in enumerate(names)}
    frame = pd.DataFrame({"Phrase": ["steel", "wood", "paper"]} | values)
    frame.to_csv(tmp_path / "corpus.csv", index=False)
    rows = open_index(tmp_path / "corpus.csv", retriever=str(small_retriever)).candidates("steel")
    assert list(rows.columns) == ["phrase", "context", *names, "similarity", "found"]
    stored = rows.set_index("phrase")[names].loc[["steel", "wood", "paper"]]
    assert stored.to_numpy().tolist() == frame[names].to_numpy().tolist()


def test_a_finished_index_needs_no_lock_nor_a_new_one_after_a_search_by_words(
    small_retriever, table, monkeypatch
) -> None:
    evaluation.by_words(open_index(table, retriever=str(small_retriever)))
    monkeypatch.setattr(storage, "lock", None)
    assert len(open_index(table, retriever=str(small_retriever))) == 4


def test_the_note_of_an_index_says_what_it_was_made_of(small_retriever, table) -> None:
    index = open_index(table, retriever=str(small_retriever))
    note = json.loads((index.folder / "corpus.json").read_text())
    assert note["table"] == storage.digest(table)
    assert note["retriever"] == storage.digest(small_retriever)
