"""Files beside a scored table: what is a user's stays, what is outdated goes, a kill leaves nothing."""

import json
import os
from pathlib import Path

import pytest

from patsim_utils import storage
from patsim_utils.method import backbones
from patsim_utils.tool import cli, models, outputs, parts

HEADER = "anchor,target,context\n"
GOOD = HEADER + "pump,valve,F04\n"
BAD = GOOD + "pump,,F04\n"
REASON = "row,reason\n3,column target: '' is an empty phrase\n"


def score(run: Path, *words: object) -> int:
    return cli.main(["score", "--run", str(run), "--on-error", "skip", *map(str, words)])


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def test_reasons_of_an_earlier_version_of_a_table_go(run: Path, tables: Path) -> None:
    (tables / "a.csv").write_text(BAD)
    assert score(run, "in", "-o", "out") == 2
    assert Path("out/a.errors.csv").read_text() == REASON
    (tables / "a.csv").write_text(GOOD)
    assert score(run, "in", "-o", "out") == 0
    assert score(run, "in", "-o", "fresh") == 0
    assert sorted(contents("out")) == [outputs.LEDGER, "a.csv"]
    assert contents("out")["a.csv"] == contents("fresh")["a.csv"]


def test_reasons_of_a_single_table_go_where_it_is_replaced_and_else_are_named(run: Path, tables: Path, capsys) -> None:
    table = tables / "a.csv"
    table.write_text(BAD)
    assert score(run, table, "-o", "x.csv") == 2
    table.write_text(GOOD)
    Path("x.csv").unlink()
    assert score(run, table, "-o", "x.csv") == 0
    assert "x.errors.csv: is of an earlier command" in capsys.readouterr().err
    assert score(run, table, "-o", "x.csv", "--overwrite") == 0
    assert not Path("x.errors.csv").exists()


def test_a_file_of_a_users_where_reasons_belong_stays(run: Path, tables: Path, capsys) -> None:
    (tables / "a.csv").write_text(GOOD)
    assert score(run, "in", "-o", "out") == 0
    Path("out/a.errors.csv").write_text("mine")
    (tables / "a.csv").write_text(BAD)
    assert score(run, "in", "-o", "out") == 2
    assert "a.errors.csv: exists already" in capsys.readouterr().err
    (tables / "a.csv").write_text(GOOD + "pump,hose,F04\n")
    assert score(run, "in", "-o", "out") == 0
    assert Path("out/a.errors.csv").read_text() == "mine"


@pytest.mark.parametrize("other", ["a.errors.csv", "a.tsv"])
def test_tables_whose_reasons_would_share_a_file_are_refused(run: Path, tables: Path, capsys, other: str) -> None:
    (tables / "a.csv").write_text(BAD)
    (tables / other).write_text(GOOD)
    assert score(run, "in", "-o", "out") == 2
    assert "would both be written to 'a.errors.csv'; rename one" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("changed", [False, True])
def test_a_single_table_that_a_kill_came_right_behind_is_done(
    run: Path, tables: Path, monkeypatch: pytest.MonkeyPatch, capsys, changed: bool
) -> None:
    table = tables / "a.csv"
    table.write_text(BAD)
    assert score(run, table, "-o", "whole.csv") == 2

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts.shutil, "rmtree", kill)
        assert score(run, table, "-o", "x.csv") == 130
    assert storage.companion(Path("x.csv"), "parts").is_dir()
    written = Path("x.csv").read_bytes()
    if changed:
        table.write_text(GOOD)
    assert score(run, table, "-o", "x.csv") == 2
    if changed:
        assert "x.csv: exists already" in capsys.readouterr().err
    assert Path("x.csv").read_bytes() == written == Path("whole.csv").read_bytes()
    names = ["in", "whole.csv", "whole.errors.csv", "x.csv", "x.errors.csv"]
    assert sorted(os.listdir()) == names


def test_a_status_file_replaces_none_but_a_status_file(run: Path, tables: Path, capsys) -> None:
    table = tables / "a.csv"
    table.write_text(GOOD)
    Path("package.json").write_text('{"name": "mine"}')
    assert score(run, table, "-o", "x.csv", "--status", "package.json") == 2
    assert "--status: package.json is there, and is no status file" in capsys.readouterr().err
    assert json.loads(Path("package.json").read_text()) == {"name": "mine"}
    for _ in range(2):
        assert score(run, table, "-o", "x.csv", "--status", "status.json", "--overwrite") == 0
    assert json.loads(Path("status.json").read_text())["done"] == 1


def test_a_folder_with_its_ledger_is_as_it_was_when_nothing_changed(run: Path, tables: Path) -> None:
    for name in ("a", "b"):
        (tables / f"{name}.csv").write_text(BAD)
    assert score(run, "in", "-o", "out") == 2
    before = contents("out")
    assert score(run, "in", "-o", "out") == 0
    assert contents("out") == before
    assert outputs.LEDGER in before


@pytest.mark.parametrize("name", ["two\nlines.csv", b"byte\xff.csv".decode("utf-8", "surrogateescape")])
def test_a_name_that_cannot_be_printed_is_said_in_one_line(run: Path, tables: Path, capfd, name: str) -> None:
    (tables / "a.csv").write_text(GOOD)
    assert score(run, tables / "a.csv", "-o", name) == 0
    assert capfd.readouterr().out.count("\n") == 1
    assert Path(name).is_file()


@pytest.mark.parametrize("letters", [229, 230, 251, 252])
def test_a_long_name_of_an_output_is_written_or_refused_before_anything_is(
    run: Path, tables: Path, letters: int
) -> None:
    (tables / "a.csv").write_text(BAD)
    target = f"{'x' * letters}.csv"
    assert score(run, tables / "a.csv", "-o", target) == 2
    written = [target, f"{'x' * letters}.errors.csv"] if letters == 229 else []
    assert sorted(os.listdir()) == ["in", *written]


def test_a_table_is_not_replaced_by_its_own_reasons(run: Path, tables: Path, capsys) -> None:
    table = Path("x.errors.csv")
    table.write_text(BAD)
    assert score(run, table, "-o", "x.csv", "--overwrite") == 2
    assert "x.errors.csv: is the table itself" in capsys.readouterr().err
    assert table.read_text() == BAD


def test_a_folder_that_another_command_scores_into_is_refused(run: Path, tables: Path, capsys) -> None:
    (tables / "a.csv").write_text(GOOD)
    Path("out").mkdir()
    with storage.lock(storage.companion(Path("out") / outputs.LEDGER, "lock"), "out"):
        assert score(run, "in", "-o", "out") == 2
    assert "out is being written by another process" in capsys.readouterr().err
    assert score(run, "in", "-o", "out") == 0
    assert sorted(contents("out")) == [outputs.LEDGER, "a.csv"]


def test_scores_of_another_version_of_the_package_are_not_taken_for_its_own(run: Path, tmp_path, monkeypatch) -> None:
    for room in backbones.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "scores.py").write_text("score = 1")
    monkeypatch.setattr(backbones, "PACKAGE", tmp_path)
    before = models.Model(run).identity
    assert models.Model(run).identity == before
    (tmp_path / "method" / "scores.py").write_text("score = 2")
    assert models.Model(run).identity != before
