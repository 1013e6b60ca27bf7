"""The settings of a run: the same rules and messages for the command line, YAML, notebooks and saved runs."""

import pytest

from patsim_utils.config import Config, pack, unpack
from patsim_utils.errors import InputError


def test_text_stands_for_numbers_as_yaml_and_command_lines_give_it() -> None:
    assert Config.parse({"learning_rate": "2e-5", "epochs": "4"}) == Config(learning_rate=2e-5, epochs=4)
    assert len(Config.model_fields) <= 28
    assert Config.parse(Config(loss="bce").model_dump()) == Config(loss="bce")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "parameter epochs: 0 .*greater than or equal to 1"),
        ({"epochs": "two"}, "parameter epochs: 'two' .*integer"),
        ({"epochs": 1.5}, "parameter epochs: 1.5 .*integer"),
        ({"epochs": True}, "parameter epochs: True .*no values"),
        ({"seed": -1}, "parameter seed: -1"),
        ({"seed": 2**32}, "parameter seed"),
        ({"learning_rate": float("nan")}, "parameter learning_rate: nan"),
        ({"learning_rate": "inf"}, "parameter learning_rate"),
        ({"lora_dropout": 1.0}, "parameter lora_dropout: 1.0"),
        ({"fusion": "sum"}, "parameter fusion: 'sum' is not 'add', 'gate'"),
        ({"backbone": 3}, "parameter backbone: 3"),
        ({"backbone": "a\x1b[2Jb"}, "cannot be printed"),
        ({"data": "x" * 2000}, "parameter data"),
        ({"contrast_weight": -1}, "parameter contrast_weight: -1"),
        ({"adapter": "hyperlora", "fusion": "none"}, "needs class vectors"),
        ({"loss": "pearson", "batch_size": 1}, "at least 2"),
        ({"epoch": 3}, "no parameter 'epoch'; did you mean epochs"),
        ({"zzz": 3}, "no parameter 'zzz'; known are adapter, alpha"),
    ],
)
def test_what_cannot_be_is_one_short_line_that_names_its_source(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Config.parse(given, source="sample.yaml")
    text = str(caught.value)
    assert text.startswith("sample.yaml: ")
    assert text.isprintable()
    assert len(text) < 700


def test_a_notebook_takes_its_own_names_and_refuses_misspelt_ones() -> None:
    names = {"epochs": 7, "name": "x", "more": "lora_rank: 16, beta: .5", "np": pytest, "show_pairs": True}
    assert Config.notebook(names) == Config(epochs=7, lora_rank=16, beta=0.5)
    for wrong in ({"epoch": 3}, {"__annotations__": {"rate": float}}, {"more": "lora_rnk: 16"}, {"more": "lora_rank"}):
        with pytest.raises(InputError, match=r"did you mean|known are|has no value"):
            Config.notebook(names | wrong)
    for broken in ("a: [1", "a: 2020-13-45", "a: " + "[" * 2000):
        with pytest.raises(InputError, match="is no list such as"):
            Config.notebook({"more": broken})


def test_more_survives_the_way_into_a_notebook() -> None:
    settings = {"cpc_titles": "a, b: 'c' \"d\" {e}", "beta": 0.5, "layers": 2}
    assert unpack(pack(settings)) == settings


def test_the_line_that_describes_a_run_follows_its_settings() -> None:
    assert Config().describe() == (
        "minilm, LoRA r=8, class text title, class vector add, "
        "loss smooth_k2 + 0.4 NT-Xent + 1 ratings, pair layout, 3 epochs"
    )
    other = Config(
        backbone="/home/me/large", layers=3, adapter="full", contrast_weight=0, rating_weight=1, layout="compact"
    )
    assert "large, lowest 3 layers, all weights trained" in other.describe()
    assert "/home" not in other.describe()
    assert "loss smooth_k2 + 1 ratings, compact layout" in other.describe()
    assert Config(layout="listwise").listwise
    assert Config(features="group").listwise
    assert not Config(layout="packed").listwise
