"""The ablation: arms are read strictly, run once each, go on where they stopped, and are compared in pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from patsim_utils import ablation, data, metrics
from patsim_utils.ablation import ARMS, ArmsError, effects, read_arms, run_arms
from patsim_utils.errors import InputError
from patsim_utils.train import Settings


@pytest.fixture(scope="module")
def base(tiny_backbone) -> Settings:
    return Settings(backbone=tiny_backbone("bert"), contrast_layer=1, epochs=1, batch_size=64)


def arms_file(folder: Path, text: str) -> Path:
    path = folder / "arms.yaml"
    path.write_text("arms:\n" + text)
    return path


def test_the_ladder_fits_the_settings() -> None:
    arms = {arm.name: arm for arm in read_arms(ARMS, Settings())}
    assert arms["described"].settings == Settings()
    assert arms["full"].settings == Settings(adapter="full", learning_rate=1e-4)
    assert arms["vector-and-title"].runs(Path("x")) == arms["described"].runs(Path("x"))  # not run twice
    assert list(arms["random-rows"].runs(Path("x"))) == [42]
    for arm in arms.values():
        assert not arm.against or arm.against in arms


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  a: {change: {losss: mse}}", "arm a: there is no parameter losss"),
        ("  a: {change: {epochs: many}}", "arm a: parameter epochs: 'many' is no int"),
        ("  a: {change: {loss: huber}}", "arm a: parameter loss: 'huber' is none of"),
        ("  a: {against: b}\n  b: {}", "arm a: `against` names 'b'"),
        ("  a: {idee: x}", "arm a: 'idee' is none of"),
        ("  - a", "holds no mapping"),
    ],
)
def test_a_broken_arms_file_is_one_line(tmp_path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_arms(arms_file(tmp_path, text), Settings())


def test_arms_run_once_go_on_and_are_compared_in_pairs(base: Settings, tmp_path, capsys) -> None:
    text = "  one: {seeds: 2}\n  two: {against: one, change: {loss: mse}, seeds: 2}\n  same: {against: two}\n"
    arms = read_arms(arms_file(tmp_path, text), base)
    broken = replace(
        arms[1], name="broken", stem="broken", settings=replace(base, backbone=str(tmp_path / "none")), seeds=1
    )
    with pytest.raises(ArmsError, match="broken-seed0: .*none"):
        run_arms([arms[0], broken], tmp_path, share=0.1, processes=2)
    out = capsys.readouterr().out
    assert "0 of 3 runs are there already" in out
    assert "3 of 3" in out
    assert "0 min left" in out
    before = (tmp_path / "one-seed0" / "metrics.json").stat().st_mtime_ns
    run_arms(arms, tmp_path, share=0.1, processes=2)
    assert "2 of 4 runs are there already" in capsys.readouterr().out
    assert (tmp_path / "one-seed0" / "metrics.json").stat().st_mtime_ns == before

    table = effects(arms, tmp_path).set_index("arm")
    frames = {
        name: [pd.read_csv(tmp_path / f"{name}-seed{k}" / "predictions.csv", keep_default_na=False) for k in (0, 1)]
        for name in ("one", "two")
    }
    for runs in frames.values():
        runs[:] = [frame[frame["split"] == "validation"] for frame in runs]
    score = frames["one"][0]["score"]
    pearson = {name: [metrics.pearson(score, frame["prediction"]) for frame in runs] for name, runs in frames.items()}
    assert table.loc["two", "difference"] == pytest.approx(np.mean(pearson["two"]) - np.mean(pearson["one"]))
    assert table.loc["two", "difference_low"] <= table.loc["two", "difference"] <= table.loc["two", "difference_high"]
    assert table.loc["one", "pearson"] == pytest.approx(np.mean(pearson["one"]))
    assert pd.isna(table.loc["one", "difference"])
    assert table.loc["same", "difference"] == pytest.approx(pearson["one"][0] - pearson["two"][0])
    assert (table["seconds"] > 0).all()


def test_another_protocol_has_no_difference(base: Settings, tmp_path) -> None:
    arms = read_arms(arms_file(tmp_path, "  one: {}\n  rows: {against: one, change: {protocol: random}}"), base)
    run_arms(arms, tmp_path, share=0.1)
    table = effects(arms, tmp_path).set_index("arm")
    assert table["difference"].isna().all()
    assert table["pearson"].notna().all()


def test_shuffled_classes_keep_groups_and_counts() -> None:
    frame = data.load("sample")["train"]
    shuffled = ablation.shuffled_contexts(frame, seed=0)
    assert (shuffled["context"] != frame["context"]).mean() > 0.5
    assert shuffled.groupby([frame["anchor"], frame["context"]])["context"].nunique().max() == 1
    pd.testing.assert_frame_equal(shuffled.drop(columns="context"), frame.drop(columns="context"))
