"""Threads by what is idle, progress as a bar or as lines, and a status file."""

import json
import sys
from pathlib import Path

import pytest

from patsim_utils.errors import InputError
from patsim_utils.tool import work


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "usable_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(work, "container_quota", lambda: None)


@pytest.mark.parametrize(
    ("idle", "own", "expected"),
    [
        (30.0, 10.0, 4),  # nobody else works: three cores idle, this process on the fourth
        (20.0, 10.0, 3),  # another process keeps one core busy
        (0.0, 10.0, 1),  # all others are busy
        (0.0, 1.0, 1),  # this process shares its core, too
    ],
)
def test_as_many_threads_as_others_leave_cores_idle(monkeypatch, four_cores, idle, own, expected) -> None:
    """Ten seconds in which the cores were idle for so long, and this process computed for so long."""
    times = iter([0.0, 10.0])
    idle_seconds = iter([100.0, 100.0 + idle])
    own_seconds = iter([1.0, 1.0 + own])
    monkeypatch.setattr(work.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(work.time, "process_time", lambda: next(own_seconds))
    monkeypatch.setattr(work, "_idle_seconds", lambda: next(idle_seconds))
    assert work.Clock().idle_cores() == expected


def test_where_the_system_does_not_count_its_load_does(monkeypatch, four_cores) -> None:
    monkeypatch.setattr(work, "_idle_seconds", lambda: None)
    monkeypatch.setattr(work.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(work.os, "getloadavg", lambda: (1.2, 9.0, 9.0))
    assert work.Clock().idle_cores() == 3


@pytest.mark.parametrize(("text", "expected"), [("max 100000", None), ("150000 100000", 1.5)])
def test_the_quota_of_a_container_counts(tmp_path: Path, monkeypatch, text: str, expected: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert work.container_quota(tmp_path) == expected
    monkeypatch.setattr(work, "usable_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(work, "container_quota", lambda: expected)
    assert work.cores() == (2 if expected else 4)


def test_threads_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = work.Clock()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert work.chosen_threads(7, clock) == 7
    assert work.chosen_threads(None, clock) == 3
    monkeypatch.setenv("PATSIM_THREADS", "5")
    assert work.chosen_threads(None, clock) == 5
    monkeypatch.setenv("PATSIM_THREADS", "all")
    with pytest.raises(InputError, match="PATSIM_THREADS: 'all' is no whole number"):
        work.chosen_threads(None, clock)


def test_progress_is_a_line_every_half_minute_without_a_terminal(monkeypatch, capsys, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    progress = work.Progress(100, status=tmp_path / "status.json")
    now[0] = 29.0
    progress.within(29, 100)
    assert capsys.readouterr().err == ""
    now[0] = 40.0
    progress.finish(40)
    assert capsys.readouterr().err == "40 of 100 pairs, 1 a second, 60 s left\n"
    progress.fail("row 3")
    expected = {"done": 40, "total": 100, "per_second": 1.0, "seconds_left": 60.0, "last_error": "row 3"}
    assert json.loads((tmp_path / "status.json").read_text()) == expected


def test_progress_is_one_bar_on_a_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = work.Progress(100, done=20)
    progress.reach(100, 100)
    progress.close()
    error = capsys.readouterr().err
    assert "20/100" in error
    assert "\n" not in error
