"""The first answers that README shows are those that the model that ships gives."""

import re
import shlex

import pytest

from patsim_utils.environment import ROOT
from patsim_utils.tool import cli

LINES = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
SHOWN = re.compile(r"\.venv/bin/patsim (?P<command>.*?) +# (?P<answer>.*); \d+ s$")
ANSWERS = {match["command"]: match["answer"] for match in map(SHOWN.match, LINES) if match}


def test_ask_score_and_search_are_shown_with_their_answers() -> None:
    assert [command.split()[0] for command in ANSWERS] == ["ask", "score", "search"]


@pytest.mark.parametrize("command", ANSWERS)
def test_the_answer_is_the_one_that_is_shown(command: str, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)
    if "-o" in arguments:
        arguments[-1] = str(tmp_path / "scored.csv")
    assert cli.main(arguments) == 0
    said = capfd.readouterr().out
    if "-o" in arguments:
        said = (tmp_path / "scored.csv").read_text()
    position = -1
    for part in ANSWERS[command].split(", "):  # in the order in which README has them
        position = said.index(part, position + 1)
