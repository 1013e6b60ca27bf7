"""The ablation: arms are read strictly, run once each, go on where they stopped, and are compared in pairs."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from patsim_utils import ablation, data, metrics, readings, report
from patsim_utils.ablation import Arm, ArmsError, effects, read_arms, run_arms
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError
from patsim_utils.train import Settings


@pytest.fixture(scope="module")
def base(tiny_backbone) -> Settings:
    return Settings(backbone=tiny_backbone("bert"), contrast_layer=1, epochs=1, batch_size=64)


@pytest.fixture
def arms_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Settings], list[Arm]]:
    """`arms_of(text, base)` reads the arms of a file with that text."""
    monkeypatch.setattr(ablation, "ARMS", tmp_path)

    def read(text: str, base: Settings) -> list[Arm]:
        (tmp_path / "few.yaml").write_text("arms:\n" + text)
        return read_arms("few", base)

    return read


@pytest.mark.parametrize("name", [path.stem for path in ablation.ARMS.glob("*.yaml")])
def test_every_file_of_arms_fits_the_settings(name: str) -> None:
    arms = {arm.name: arm for arm in read_arms(name, Settings())}
    for arm in arms.values():
        assert not arm.against or arm.against in arms
        assert arm.idea != arm.name


def test_the_ladder_changes_what_it_says() -> None:
    arms = {arm.name: arm for arm in read_arms("ablation", Settings())}
    assert arms["described"].settings == Settings()
    assert arms["full"].settings == Settings(adapter="full", learning_rate=1e-4)
    assert arms["vector-and-title"].runs(Path("x")) == arms["described"].runs(Path("x"))  # not run twice
    packed = {arm.name: arm for arm in read_arms("ablation", Settings(layout="packed"))}  # a cheaper base
    assert packed["packed"].stem == arms["pair"].stem == "described"
    assert packed["pair"].settings.layout == packed["source"].settings.layout == "pair"
    assert list(arms["random-rows"].runs(Path("x"))) == [42]


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
def test_a_broken_arms_file_is_one_line(arms_of, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        arms_of(text, Settings())


def test_a_file_of_arms_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InputError, match="'ladder' is none of .*ablation"):
        read_arms("ladder", Settings())


def test_arms_run_once_go_on_and_are_compared_in_pairs(base: Settings, arms_of, tmp_path, capsys) -> None:
    text = "  one: {seeds: 2}\n  two: {against: one, change: {loss: mse}, seeds: 2}\n  same: {against: two}\n"
    arms = arms_of(text, base)
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
    assert table["compared"].to_dict() == {"one": 0, "two": 2, "same": 1}
    assert table.loc["one", ["seed_low", "seed_high"]].tolist() == sorted(pearson["one"])
    assert (table["seconds"] > 0).all()


@pytest.mark.parametrize(("options", "said"), [({"share": 0.0}, "share: 0.0"), ({"processes": 0}, "processes: 0")])
def test_shares_and_processes_out_of_range_are_refused(arms_of, tmp_path, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        run_arms(arms_of("  one: {}", Settings()), tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_another_protocol_has_no_difference(base: Settings, arms_of, tmp_path) -> None:
    arms = arms_of("  one: {}\n  rows: {against: one, change: {protocol: random}}", base)
    run_arms(arms, tmp_path, share=0.1)
    table = effects(arms, tmp_path).set_index("arm")
    assert table["difference"].isna().all()
    assert table["pearson"].notna().all()


@pytest.mark.parametrize("protocol", ["anchor_disjoint", "random"])
def test_a_share_of_the_anchors_leaks_as_much_as_all(protocol: str) -> None:
    settings = Settings(protocol=protocol, seed=42)
    every, part = (ablation.splits_of(settings, share=share) for share in (1.0, 0.2))
    trained = part["train"]["anchor"].unique()
    assert len(trained) == round(0.2 * every["train"]["anchor"].nunique())
    if protocol == "random":
        assert part["validation"]["anchor"].isin(trained).all()
        rows = every["validation"]
        pd.testing.assert_frame_equal(part["validation"], rows[rows["anchor"].isin(trained)].reset_index(drop=True))
    else:
        pd.testing.assert_frame_equal(part["validation"], every["validation"])


def table_of_effects() -> pd.DataFrame:
    """Three arms: one that others start from, one that surely helps, and one on another protocol."""
    return pd.DataFrame(
        {
            "arm": ["better", "base", "rows"],
            "idea": ["a better idea", "where it starts", "another split"],
            "against": ["base", "", "base"],
            "seeds": [2, 2, 1],
            "pearson": [0.7, 0.6, 0.85],
            "low": [0.6, 0.5, 0.8],
            "high": [0.8, 0.7, 0.9],
            "seed_low": [0.69, 0.59, 0.85],
            "seed_high": [0.71, 0.61, 0.85],
            "compared": [2, 0, 0],
            "difference": [0.1, np.nan, np.nan],
            "difference_low": [0.05, np.nan, np.nan],
            "difference_high": [0.15, np.nan, np.nan],
            "seconds": [10.0, 20.0, 30.0],
            "parameters": [100, 100, 100],
        }
    )


def test_the_sentences_name_effect_and_leak() -> None:
    table = table_of_effects()
    first, second = readings.ideas(table).splitlines()
    assert first == "- **better** (a better idea) helps against `base`: 0.100 [0.050, 0.150], 2 seeds."
    assert "0.850 [0.800, 0.900] on its own held-out rows, where `base` has 0.600" in second
    assert "+0.250 is what the split alone" in second
    alone = table.assign(compared=1)
    assert "scored higher in its one run against `base`" in readings.ideas(alone).splitlines()[0]
    assert "makes no sure difference" in readings.ideas(table.assign(difference_low=-0.01)).splitlines()[0]
    said = readings.ablation_base(Settings(batch_size=48), share=0.25, table=table)
    assert "48 pairs a step" in said
    assert "`base` has 0.600 [0.500, 0.700]; its seeds alone lie between 0.590 and 0.610" in said
    assert "trained on 25 % of the training anchors." in said
    assert "2 of 3 arms have several seeds." in said
    assert "The intervals of 1 of 1 comparison leave out zero" in said


def test_recorded_effects_enter_the_result_table(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "5_ablation.html").write_text("a page without a run of its own")
    table_of_effects().to_csv(tmp_path / "one" / "effects.csv", index=False)
    text = report.results_table(tmp_path)
    assert "ablation of <code>one</code>, 3 arms" in text
    assert "| `better` | a better idea | 2 | 0.700 | `base` | **+0.100 [+0.050, +0.150]** | 10 |" in text
    assert "| `rows` | another split | 1 | 0.850 | `base` |  | 30 |" in text
    assert "nan" not in text
    shutil.copytree(ROOT / "reports" / "template", tmp_path / "template")
    report.write_index(tmp_path)
    assert '<a href="one/5_ablation.html">' in (tmp_path / "index.html").read_text()


def test_shuffled_classes_keep_groups_and_counts() -> None:
    frame = data.load("sample")["train"]
    shuffled = ablation.shuffled_contexts(frame, seed=0)
    assert (shuffled["context"] != frame["context"]).mean() > 0.5
    assert shuffled.groupby([frame["anchor"], frame["context"]])["context"].nunique().max() == 1
    pd.testing.assert_frame_equal(shuffled.drop(columns="context"), frame.drop(columns="context"))
