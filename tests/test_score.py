"""The scoring command: the run's own numbers again, and one line for bad input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from patsim_utils import score
from patsim_utils.matcher import Architecture, Matcher


@pytest.fixture
def run(tiny_backbone, tmp_path: Path) -> Path:
    Matcher(Architecture(backbone=tiny_backbone("bert"), contrast_layer=1)).save(tmp_path / "run" / "model")
    return tmp_path / "run"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_it_writes_the_scores_of_the_model_beside_the_input(run: Path, tmp_path: Path, capsys) -> None:
    pairs = write(tmp_path / "pairs.csv", "note,context,anchor,target\na,H04,null,nan\nb,E04,strong material,steel\n")
    output = tmp_path / "scored.csv"
    assert score.main([str(pairs), "--run", str(run), "-o", str(output)]) == 0
    assert "2 pairs" in capsys.readouterr().out
    scored = pd.read_csv(output, keep_default_na=False)
    assert scored.columns.tolist() == ["note", "context", "anchor", "target", "prediction"]
    assert scored["anchor"].tolist() == ["null", "strong material"]
    np.testing.assert_allclose(scored["prediction"], Matcher.load(run).score(scored), atol=1e-7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anchor,target,context\na,,H04\n", "row 2, column target"),
        ("anchor,target,context\na,b,H04\na,b,Q99\n", "row 3, column context: 'Q99'"),
        ("anchor,target\na,b\n", "column 'context' is missing"),
        ("anchor,target,context,prediction\na,b,H04,1\n", "there is a column 'prediction' already"),
    ],
)
def test_bad_input_is_one_line_and_no_output(run: Path, tmp_path: Path, capsys, text: str, message: str) -> None:
    pairs, output = write(tmp_path / "pairs.csv", text), tmp_path / "scored.csv"
    assert score.main([str(pairs), "--run", str(run), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(pairs) in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_an_unknown_class_can_be_scored_by_choice(run: Path, tmp_path: Path) -> None:
    pairs, output = write(tmp_path / "pairs.csv", "anchor,target,context\na,b,\n"), tmp_path / "scored.csv"
    assert score.main([str(pairs), "--run", str(run), "-o", str(output), "--unknown", "embedding"]) == 0
    assert 0 <= pd.read_csv(output)["prediction"].item() <= 1


def test_no_model_and_no_folder_are_said(tmp_path: Path, run: Path, capsys) -> None:
    pairs = write(tmp_path / "pairs.csv", "anchor,target,context\na,b,H04\n")
    assert score.main([str(pairs), "--run", str(tmp_path / "none"), "-o", str(tmp_path / "x.csv")]) == 2
    assert "no model here" in capsys.readouterr().err
    assert score.main([str(pairs), "--run", str(run), "-o", str(tmp_path / "no" / "x.csv")]) == 2
    assert "does not exist" in capsys.readouterr().err
