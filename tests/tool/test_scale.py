"""Scoring by a real Ray cluster of two workers: the plain command's numbers, whatever is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.search import index as index_module
from patsim_utils.search.index import Index
from patsim_utils.search.retriever import vectors
from patsim_utils.tool import cli, scale, scoring

pytest.importorskip("ray", reason="Ray is not installed")


class Slow(scale.Scorer):
    """Takes its time, so that it can be killed while it works."""

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        time.sleep(0.5)
        return super().__call__(part)


class Uneven:
    """A worker that reads the first part last, without a model: a phrase's vector is its length."""

    def __init__(self, retriever: str) -> None:
        pass

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        time.sleep(1.0 * (part["part"].iloc[0] == 0))
        lengths = part["phrase"].str.len().to_numpy(np.float32)
        return pd.DataFrame({"value": list(np.repeat(lengths[:, None], 384, axis=1)), "part": part["part"]})


@pytest.fixture(scope="module")
def run(tiny_backbone, tmp_path_factory) -> Path:
    """Runs with a model of single pairs and one that reads features of the group."""
    folder = tmp_path_factory.mktemp("runs")
    for name, features in (("pair", "none"), ("listwise", "group")):
        torch.manual_seed(0)
        config = Config(backbone=tiny_backbone("bert"), features=features, precision="fp32")
        matcher = Matcher(config)
        if features == "group":
            matcher.regressor = Regressor.fit(load("sample")["train"].head(100), config)
        matcher.save(folder / name / "model")
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Two workers at most, for all tests of this file."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    with scale.cluster(2):
        yield


def test_both_engines_give_the_same_numbers_also_where_a_worker_is_killed(
    run: Path, cluster, tmp_path, monkeypatch, capsys
) -> None:
    plain, killed = scale.mapped, []

    def predictions(*given, **options):
        for found in plain(*given, **options):
            if not killed:
                workers = psutil.process_iter(["cmdline"])
                killed.append(next(one.pid for one in workers if "Slow" in " ".join(one.info["cmdline"] or [])))
                os.kill(killed[0], signal.SIGKILL)
            yield found

    monkeypatch.setattr(scale, "Scorer", Slow)
    monkeypatch.setattr(scale, "mapped", predictions)
    monkeypatch.setattr(scoring, "RAY_CHUNK", 50)
    (tmp_path / "in").mkdir()
    rows = load("sample")["test"][["anchor", "target", "context"]].assign(note=lambda frame: range(len(frame)))
    rows.sample(frac=1, random_state=0).to_parquet(tmp_path / "in" / "a.parquet", index=False)
    (tmp_path / "in" / "notes.txt").write_text("no table")
    outputs = [tmp_path / engine for engine in ("local", "ray")]
    words = ["score", "--run", str(run / "listwise"), str(tmp_path / "in")]  # whose groups must stay together
    assert cli.main([*words, "-o", str(outputs[0])]) == 0
    assert cli.main([*words, "-o", str(outputs[1]), "--engine", "ray", "--workers", "2"]) == 0
    assert killed
    local, ray = (pd.read_parquet(output / "a.parquet") for output in outputs)
    pd.testing.assert_frame_equal(local.drop(columns="prediction"), ray.drop(columns="prediction"))
    np.testing.assert_allclose(local["prediction"], ray["prediction"], atol=1.1e-4)
    assert local["prediction"].std() > 1e-3
    assert [path.name for path in outputs[1].glob("[!.]*")] == ["a.parquet"]
    assert "INFO" not in capsys.readouterr().err
    assert cli.main([*words, "-o", str(outputs[1]), "--engine", "ray"]) == 0
    assert capsys.readouterr().out.count("is there already and stays as it is") == 1
    assert cli.main([*words, "-o", str(tmp_path / "in")]) == 2
    assert "holds the tables themselves" in capsys.readouterr().err


JOIN = """
from patsim_utils.tool import scale

with scale.cluster(8):
    import ray

    print(ray.get_runtime_context().gcs_address, ray.cluster_resources()["CPU"])
"""


def test_another_process_joins_a_running_cluster_and_leaves_it_running(cluster) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    command, environment = [sys.executable, "-c", JOIN], os.environ | {"RAY_ADDRESS": address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{address} 2.0\n", done.stderr
    assert ray.get(ray.remote(num_cpus=1)(lambda: 1).remote()) == 1


def test_workers_read_the_phrases_of_an_index_in_their_order(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "CHUNK", 40)
    monkeypatch.setattr(scale, "Reader", Uneven)
    phrases = load("sample")["test"]["target"].drop_duplicates()[:150].to_frame("phrase")
    index = Index(tmp_path, retriever="minilm", create=True)
    index.add(phrases, encode=scale.encoder(2))
    table = index.table.to_pandas()
    assert table["phrase"].tolist() == phrases["phrase"].tolist()
    assert [vector[0] for vector in table["vector"]] == table["phrase"].str.len().tolist()


def test_a_worker_reads_as_this_process_does(tmp_path) -> None:
    part = pd.DataFrame({"phrase": ["steel", "robust material"], "part": [3, 3]})
    index = Index(tmp_path, retriever="minilm", create=True)
    found = scale.Reader(str(index.retriever))(part)
    np.testing.assert_allclose(np.stack(found["value"]), vectors(index.model, part["phrase"]), atol=1e-6)
    assert found["part"].tolist() == [3, 3]


def test_a_stopped_command_goes_on_with_the_parts_that_are_missing(run: Path, tmp_path, monkeypatch) -> None:
    load("sample")["test"].to_csv(tmp_path / "pairs.csv", index=False)
    words = ["score", "--run", str(run / "pair"), str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "scored.csv")]
    asked = []

    def predictions(worker, arguments, parts, **_):
        asked.append(list(parts))
        for number, rows in reversed(parts.items()):  # Ray gives them in any order
            if len(asked) == 1 and number == 3:
                raise KeyboardInterrupt
            yield number, Matcher.load(run / "pair").score(rows)[:, None]

    monkeypatch.setattr(scoring, "RAY_CHUNK", 50)
    monkeypatch.setattr(scale, "mapped", predictions)
    assert cli.main([*words, "--engine", "ray"]) == 130
    assert cli.main([*words, "--engine", "ray"]) == 0
    assert asked[1] == [0, 1, 2, 3]
    assert len(asked[0]) > 4
    found = pd.read_csv(tmp_path / "scored.csv", keep_default_na=False)
    np.testing.assert_allclose(Matcher.load(run / "pair").score(found), found["prediction"], atol=6e-5)


def test_what_ray_cannot_do_has_its_line(run: Path, tmp_path, monkeypatch, capsys) -> None:
    words = ["score", "--run", str(run / "pair"), str(tmp_path), "-o", str(tmp_path / "out")]
    for more, told in (
        (["--workers", "2"], "--workers: works with --engine ray only"),
        (["--engine", "ray", "--workers", "0"], "--workers: '0' is no whole number of at least 1"),
        (["--engine", "ray", "--workers", "1" * 20], "--workers: '11111111111111111111' has more than nine digits"),
        ([], "holds no table"),
    ):
        assert cli.main([*words, *more]) == 2
        assert told in capsys.readouterr().err
    (tmp_path / "pairs.tsv.gz").touch()
    assert cli.main([*words, "-o", "-"]) == 2
    assert "-: standard output is no folder, and a folder of tables is scored into one" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main([*words, "--engine", "ray"]) == 2
    assert "pip install -e '.[scale]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
