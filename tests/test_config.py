"""The settings of a run: the same rules and messages for the command line, YAML, notebooks and saved runs."""

import pytest

from patsim_utils.config import Config, Parameters
from patsim_utils.errors import InputError
from patsim_utils.plain_yaml import read_yaml


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
        ({"zzz": 3}, "no parameter 'zzz'; patsim_utils/config.py lists them"),
    ],
)
def test_what_cannot_be_is_one_short_line_that_names_its_source(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Config.parse(given, source="sample.yaml")
    text = str(caught.value)
    assert text.startswith("sample.yaml: ")
    assert text.isprintable()
    assert len(text) < 700


CELL = """epochs: int = 7  # passes
name: str = "x"  # of the study"""


def notebook(*cells: str, **variables: object) -> dict[str, object]:
    """The `globals()` of a notebook in which these cells ran."""
    namespace: dict[str, object] = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, namespace)
    return namespace | variables


def test_a_notebook_is_read_by_its_parameters_cells_alone() -> None:
    assert Parameters.notebook(notebook(CELL)) == Parameters(epochs=7, name="x")
    injected = "# Parameters\nepochs = 2\nlora_rank = 16\nleak = True\n"
    assert Parameters.notebook(notebook(CELL, injected)) == Parameters(epochs=2, name="x", lora_rank=16, leak=True)
    assert Parameters.notebook(notebook(CELL)).config == Config(epochs=7)
    added = notebook(f"{CELL}\nlora_rank: int = 4  # a setting that the cell did not have")
    assert Parameters.notebook(added).lora_rank == 4
    own = {"epoch": 3, "names": ["a"], "layer": 2, "layers": "text", "loss": [1.0]}  # variables of the notebook
    cells = (CELL, "epoch = 3", "layers: str = 'text'; print(layers)", "count: int = 3", "for name_ in []: pass")
    assert Parameters.notebook(notebook(*cells, **own)) == Parameters(epochs=7, name="x")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("epoch: int = 3\nname: str = 'x'", "no parameter 'epoch'; did you mean epochs"),
        ("epoch = 3\nname: str = 'x'", "no parameter 'epoch'; did you mean epochs"),
        ("# Parameters\nepoch = 3\n", "no parameter 'epoch'; did you mean epochs"),
        ("# Parameters\nepochs = True\n", "parameter epochs: True .*no values"),
        ("epochs: int = 'many'", "parameter epochs: 'many'"),
        ("leak: bool = 'perhaps'", "parameter leak: 'perhaps'"),
    ],
)
def test_a_misspelt_parameter_of_a_notebook_is_refused_until_its_cell_is_mended(cell: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Parameters.notebook(notebook(CELL, cell))
    mended = "# Parameters\nseed = 4\n" if cell.startswith("#") else "seed: int = 4"
    assert Parameters.notebook(notebook(CELL, cell, CELL, mended)).seed == 4


def test_a_program_that_keeps_no_cells_shows_its_annotations() -> None:
    assert Parameters.notebook({"__annotations__": {"epochs": int}, "epochs": 5}) == Parameters(epochs=5)
    with pytest.raises(InputError, match="no parameter 'rate'"):
        Parameters.notebook({"__annotations__": {"rate": float}, "rate": 0.1})


def test_the_line_that_describes_a_run_follows_its_settings() -> None:
    assert Config().describe() == (
        "minilm, LoRA r=8, class text title, class vector add, "
        "loss smooth_k2 + 0.4 NT-Xent + 1 ratings, pair layout, 3 epochs"
    )
    other = Config(
        backbone="/home/me/large", layers=3, adapter="full", contrast_weight=0, rating_weight=1, layout="packed"
    )
    assert "large, lowest 3 layers, all weights trained" in other.describe()
    assert "/home" not in other.describe()
    assert "loss smooth_k2 + 1 ratings, packed layout" in other.describe()


def test_scores_are_listwise_where_features_are_of_the_group() -> None:
    assert Config(features="group").listwise
    assert not Config(layout="packed", features="similarity").listwise


def test_a_run_of_an_earlier_version_has_its_layout_under_the_former_name() -> None:
    assert Config.parse({"layout": "compact"}, source="config.json").layout == "packed"
    with pytest.raises(InputError, match="parameter layout: 'listwise' is not 'pair', 'packed' or 'repeated'"):
        Config.parse({"layout": "listwise"})


def test_numbers_of_a_preset_are_read_as_on_the_command_line_or_refused() -> None:
    assert Config.parse(read_yaml("seed: 010")) == Config.parse({"seed": "010"}) == Config(seed=10)
    for line in ("epochs: 1:30", "epochs: 0x1F", "epochs: 2020-01-31", "name: no", "seed: 0o7"):
        with pytest.raises(InputError, match="parameter"):
            Config.parse(read_yaml(line), source="x.yaml")
