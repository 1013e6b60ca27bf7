"""Outputs: written beside and renamed, folders swapped, names locked, tables in the form that the ending says."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pandas as pd
import pytest

from patsim_utils import storage
from patsim_utils.data.tables import read_table
from patsim_utils.errors import InputError
from patsim_utils.tool import outputs

FORMS = ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet", "A.XLSX"]


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [("=1+1", "null", "a,\tb"), ("-5", "a\rb", '"x"'), ("", "@x", "two\nlines"), ("01", "NA", "é")]
    return pd.DataFrame(rows, columns=["note", "note", "anchor"], dtype=str)


@pytest.mark.parametrize("name", FORMS)
def test_a_table_comes_back_as_it_went(frame: pd.DataFrame, tmp_path: Path, name: str) -> None:
    if name in ("a.parquet", "A.XLSX"):  # in which no two columns have one name
        frame = frame.set_axis(["note", "note2", "anchor"], axis=1)
    if name == "A.XLSX":
        frame = frame.replace("a\rb", "ab")  # XML has no carriage return
    before = os.umask(0o027)
    outputs.write_table(frame, tmp_path / name)
    os.umask(before)
    back, _ = read_table(tmp_path / name)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", FORMS)
def test_cells_that_a_spreadsheet_would_run_are_escaped_if_told(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"=x": ["=1", "+1", "-1", "@a", "\tb", "a=1", ""], "n": [-1.0] * 7})
    outputs.write_table(frame, tmp_path / name, spreadsheet_safe=True)
    back, _ = read_table(tmp_path / name)
    assert back.columns.tolist() == ["'=x", "n"]
    assert back["'=x"].tolist() == ["'=1", "'+1", "'-1", "'@a", "'\tb", "a=1", ""]
    assert back["n"].astype(float).eq(-1).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.zst", "its ending is none of .csv,"),
        ("x", "its ending is none of"),
        ("no/x.csv", "no file can be written there (No such file or directory)"),
        ("there.csv/x.csv", "no file can be written there (Not a directory)"),
        ("folder.csv", "is a folder, a device or a link to nothing"),
        ("there.csv", "exists already; --overwrite replaces it"),
        ("x.xlsx", "a sheet holds 1,048,575 rows, not 2,097,152"),
        ("x.parquet", "a Parquet file holds no two columns of one name"),
        ("x" * 300 + ".csv", "its name has more than 240 bytes"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").touch()
    with pytest.raises(InputError) as error:
        outputs.check_output(tmp_path / name, rows=2**21, columns=["a", "a"])
    assert said in str(error.value)
    assert len(str(error.value)) < 300
    outputs.check_output(tmp_path / "there.csv", overwrite=True)
    outputs.check_output(tmp_path / "new.csv", rows=2**21)
    outputs.check_output(None)


@pytest.mark.parametrize("value", ["a\x01b", "x" * 32768])
def test_a_sheet_never_changes_a_value_silently(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match=r"x\.xlsx.*cannot hold this table \(row 2: '"):
        outputs.write_table(pd.DataFrame({"a": [value]}), tmp_path / "x.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_file(tmp_path: Path) -> None:
    """In a process of its own that may write no file above 4 kB."""
    (tmp_path / "x.csv").write_text("older")
    program = (
        "import resource, sys, pathlib; from patsim_utils import storage as files; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "files.write_text(pathlib.Path(sys.argv[1]), 'x' * 10000)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27]" in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.csv", "older")]


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.parametrize("cut", range(8))
def test_a_swap_that_is_killed_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """Cut off before its first, second ... step: afterwards there is the older or the new folder, and nothing else."""
    target = folder(tmp_path / "run", "older")
    fresh = folder(tmp_path / "fresh", "new")
    steps = iter(range(99))

    def step(done):
        def either(*values, **options):
            if next(steps) == cut:
                raise KeyboardInterrupt
            return done(*values, **options)

        return either

    with monkeypatch.context() as patch:
        patch.setattr(storage.shutil, "rmtree", step(storage.shutil.rmtree))
        for name in ("mkdir", "write_bytes", "rename"):
            patch.setattr(Path, name, step(getattr(Path, name)))
        try:
            storage.swap(fresh, target)
        except KeyboardInterrupt:
            assert cut < 7
        else:
            assert cut == 7
    storage.recover(target)
    swapped = cut > 3  # mkdir, mark, older aside, new in
    assert (target / "file").read_text() == ("new" if swapped else "older")
    assert sorted(path.name for path in tmp_path.iterdir()) == (["run"] if swapped else ["fresh", "run"])


@pytest.mark.parametrize("name", ["run.old", ".run.old", "run.new", ".run.0123456789abcdef.swap"])
def test_a_folder_that_the_user_made_stays(tmp_path: Path, name: str) -> None:
    target = folder(tmp_path / "run", "older")
    own = folder(tmp_path / name, "the user's")
    for text in ("one", "two"):
        storage.swap(folder(tmp_path / "fresh", text), target)
        storage.recover(target)
    assert (target / "file").read_text() == "two"
    assert (own / "file").read_text() == "the user's"
    storage.remove(target)
    storage.recover(target)
    assert not target.exists(), "a copy of the user's is not moved back"
    assert (own / "file").read_text() == "the user's"


def test_swaps_of_names_that_begin_alike_leave_each_other_alone(tmp_path: Path) -> None:
    long = "x" * 60
    aside = folder(tmp_path / f".{long[:50]}.{'0' * 16}.swap", "")
    (aside / storage.MARK).write_text(f"{long}-two")
    folder(aside / "old", "of the second")
    storage.swap(folder(tmp_path / "fresh", "one"), tmp_path / f"{long}-one")
    assert (aside / "old" / "file").read_text() == "of the second"
    storage.recover(tmp_path / f"{long}-two")
    assert (tmp_path / f"{long}-two" / "file").read_text() == "of the second"
    assert not aside.exists()


def test_a_file_is_not_replaced_by_a_folder_and_a_dangling_link_is(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file of the user's")
    with pytest.raises(InputError, match="run: is a file, and a folder is to be written there"):
        storage.swap(folder(tmp_path / "fresh", "new"), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "a file of the user's"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    storage.swap(tmp_path / "fresh", tmp_path / "link")
    assert (tmp_path / "link" / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "run"]


def test_a_folder_that_is_a_link_is_swapped_again_and_again(tmp_path: Path) -> None:
    elsewhere, target = folder(tmp_path / "disk", "older"), tmp_path / "run"
    target.symlink_to(elsewhere)
    for text in ("one", "two"):
        storage.swap(folder(tmp_path / "fresh", text), target)
        assert (target / "file").read_text() == text
    assert (elsewhere / "file").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "run"]


def test_the_lock_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from patsim_utils import storage as files\n"
        "with files.lock(pathlib.Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=r"^the run is being written by another"),
            storage.lock(tmp_path / "lock", "the run"),
        ):
            pass
        process.kill()
    with storage.lock(tmp_path / "lock", "the run"):
        pass
    assert list(tmp_path.iterdir()) == []  # a lock that is released leaves no file


def test_a_lock_that_was_opened_before_it_went_is_none(tmp_path: Path) -> None:
    first = filelock.FileLock(tmp_path / "lock")
    first.acquire()
    second = filelock.FileLock(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    second.acquire(timeout=0)  # of a new file
    first.release()
    with (
        pytest.raises(InputError, match=r"^the run is being written by another"),
        storage.lock(tmp_path / "lock", "the run"),
    ):
        pass
    second.release()


def test_what_a_killed_writing_left_goes_with_the_next_one_of_that_file(tmp_path: Path) -> None:
    """While its process lives it stays."""
    program = (
        "import os, pathlib, sys, time; from patsim_utils import storage as files\n"
        "def fsync(_): print('in it', flush=True); time.sleep(60)\n"
        "os.fsync = fsync; files.write_text(pathlib.Path(sys.argv[1]), 'half')"
    )
    path = tmp_path / "x.csv"
    own = tmp_path / ".x.csv.new"
    own.write_text("the user's")
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in it\n"
        [half] = tmp_path.glob(".x.csv.*.new")
        os.utime(half, (0, 0))
        storage.write_text(path, "first")
        assert half.exists()
        process.kill()
    storage.write_text(tmp_path / "other.csv", "of another name")
    assert half.exists()
    storage.write_text(path, "second")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".x.csv.new", "other.csv", "x.csv"]
    assert path.read_text() == "second"


def test_where_no_lock_can_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"^the run cannot be written: no file can be made in .*file"),
        storage.lock(tmp_path / "file" / "lock", "the run"),
    ):
        pass


def test_two_outputs_never_share_a_temporary_name(tmp_path: Path) -> None:
    one, two = tmp_path / f"{'é' * 60}1.csv", tmp_path / f"{'é' * 60}2.csv"
    assert storage.companion(one, "parts") == storage.companion(one, "parts") != storage.companion(two, "parts")
    assert storage.temporary(one) != storage.temporary(one)
    for path in (storage.companion(one, "parts"), storage.temporary(two)):
        assert path.parent == tmp_path
        path.touch()  # the name is not too long


def test_the_digest_is_that_of_content(tmp_path: Path) -> None:
    """Size and time of a changed file may be the old ones; another place, time or order of writing changes nothing."""
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        (path / "1_Pooling").mkdir(parents=True)
        for name in ("b", "a", "1_Pooling/config.json"):
            (path / name).write_text(f"content of {name}")
    os.utime(two / "a", (0, 0))
    (two / ".cache").mkdir()
    (two / ".cache" / "x").touch()
    (two / "1_Pooling" / "above").symlink_to(two)  # a circle
    (tmp_path / "linked").symlink_to(one)
    assert storage.digest(one) == storage.digest(str(two)) == storage.digest(tmp_path / "linked")
    assert storage.digest(one / "a") == storage.digest((one / "a").read_bytes()) != storage.digest(one / "b")
    before = storage.digest(two)
    times = (two / "1_Pooling" / "config.json").stat()
    (two / "1_Pooling" / "config.json").write_text("CONTENT of 1_Pooling/config.json")
    os.utime(two / "1_Pooling" / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert storage.digest(two) != before
    (one / "a").rename(one / "c")
    assert storage.digest(one) != before
    assert storage.digest(one, two) != storage.digest(two, one)


def test_what_has_no_lasting_content_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in {"pipe": "is a pipe or a device", "none": "No such file", "zero\0": "null byte"}.items():
        with pytest.raises(InputError, match=message):
            storage.digest(tmp_path / path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*x.csv") as caught:
        storage.write(tmp_path / "x.csv", b"x")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_users_in_the_place_of_work_is_refused(tmp_path: Path) -> None:
    work = tmp_path / ".x.work"
    storage.begin(work)
    (work / "1_explore.ipynb").write_text("of a command that was killed")
    storage.begin(work)
    assert [path.name for path in work.iterdir()] == [storage.MARK]
    (work / storage.MARK).unlink()
    storage.begin(work)  # a kill came before the mark
    (work / storage.MARK).unlink()
    (work / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="x.work: is there, and is not known to be of patsim; move it away"):
        storage.begin(work)
    assert (work / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "data/notes.txt", "data/.hidden", "figures", "data/link"])
def test_a_folder_with_something_of_a_users_is_not_replaced(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "made"
    (folder / "data" / "parts").mkdir(parents=True)
    (folder / "data" / "a.json").touch()

    def is_own(path: Path) -> bool:
        return path.name == "data" or path.suffix == ".json"

    storage.refuse_others(folder, is_own, "it")
    storage.refuse_others(tmp_path / "none", is_own, "it")
    if name == "figures":
        (folder / name).mkdir()
    elif name == "data/link":
        (folder / name).symlink_to(folder / "data" / "a.json")
    else:
        (folder / name).touch()
    with pytest.raises(InputError, match=f"{name}: is no part of it, which is to be replaced; move it away"):
        storage.refuse_others(folder, is_own, "it")
