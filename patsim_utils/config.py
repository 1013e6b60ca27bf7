"""The settings of a run: one model for command line, YAML files, notebooks and saved runs."""

import ast
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from patsim_utils.errors import InputError, clip, counted

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(max_length=1000)]

# How `Config.describe` calls them
ADAPTERS = {"lora": "LoRA", "lora_all": "LoRA on all layers", "hyperlora": "HyperLoRA"}
FEATURES = {"similarity": "similarity features", "group": "features of the group"}


class Config(BaseModel):
    """Everything that a run depends on.

    The defaults are the described method, with ratings, on the sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # the data
    data: Text = Field("sample", min_length=1)  # sample, kaggle or a folder with train.csv
    protocol: Literal["anchor_disjoint", "random"] = "anchor_disjoint"  # random splits rows, only to show the leak
    seed: int = Field(0, ge=0, lt=2**32)  # of split, initial weights, order of batches and bootstrap
    cpc_titles: Text = ""  # official CPC title list (zip); empty for the built-in glosses
    # the model
    backbone: Text = Field("minilm", min_length=1)  # minilm, mpnet, a Hugging Face name or a local folder
    layers: int = Field(0, ge=0, le=1000)  # lowest layers of the backbone that are kept; 0 for all
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of matrix products; auto: bf16 where that is fast, else fp32
    layout: Literal["pair", "packed", "repeated"] = "pair"  # how rows become sequences
    # what the encoder reads of the class; title: its first eight tokens
    context_text: Literal["title", "whole_title", "code", "none"] = "title"
    # how the class vector enters the token embeddings
    fusion: Literal["add", "gate", "attention", "graph", "none"] = "add"
    # which weights of the encoder are trained; lora: query, key, value; lora_all: all linear
    adapter: Literal["lora", "lora_all", "hyperlora", "full"] = "lora"
    lora_rank: int = Field(8, ge=1, le=1024)  # rank of the update
    lora_alpha: int = Field(16, ge=1, le=65536)  # the update is scaled by alpha / rank
    lora_dropout: Share = 0.1  # of the LoRA branches
    dropout: Share = 0.0  # of the encoder itself
    # the loss
    loss: Literal["smooth_k2", "ordinal_logistic", "bce", "mse", "pearson"] = "smooth_k2"  # of the ordinal head
    alpha: Positive = 4.0  # factor of Smooth K2
    beta: Weight = 0.25  # flat zone of Smooth K2, in ranks
    contrast_weight: Weight = 0.4  # lambda, factor of NT-Xent; 0 for none
    contrast_layer: int = Field(3, ge=0, le=1000)  # layer whose spans are contrasted; 0 the embeddings
    temperature: Positive = 0.1  # tau of NT-Xent
    rating_weight: Weight = 1.0  # factor of the ten ratings' cross-entropy, an auxiliary loss
    # numbers of a pair whose regressor is blended with the model; group: also of the other targets of its anchor
    features: Literal["none", "similarity", "group"] = "none"
    # the training
    curriculum: Literal["none", "easy_first", "random", "hard_first"] = "none"  # which anchors an epoch draws on
    epochs: int = Field(3, ge=1, le=1000)  # passes over the training pairs
    batch_size: int = Field(32, ge=1, le=100_000)  # pairs a step
    learning_rate: Rate = 1e-3  # peak, of the encoder or its adapter
    head_learning_rate: Rate = 1e-3  # peak, of everything that is new

    @field_validator("*", mode="before")
    @classmethod
    def _plain_value(cls, value: object, field: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[field.field_name].annotation is not bool:
            raise ValueError("true and false are no values of it")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError("it holds characters that cannot be printed")
        return value

    @field_validator("layout", mode="before")
    @classmethod
    def _former_name(cls, value: object) -> object:
        """Runs of earlier versions have the layout `packed` under the name `compact`."""
        return "packed" if value == "compact" else value

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.adapter == "hyperlora" and self.fusion == "none":
            raise ValueError("adapter 'hyperlora' needs class vectors, and fusion 'none' has none")
        if self.loss == "pearson" and self.batch_size == 1:
            raise ValueError("loss 'pearson' needs a batch_size of at least 2: one pair has no correlation")
        return self

    @property
    def listwise(self) -> bool:
        """Whether a score also depends on the other targets of the anchor: a track of its own."""
        return self.features == "group"

    @classmethod
    def parse(cls, settings: Mapping[str, object], *, source: str = "") -> Self:
        """The configuration with these settings, the others at their defaults.

        Text may stand for a number.

        InputError: one line with the `source`, the setting, its value and what is allowed.

        >>> Config.parse({"epochs": "4"}).epochs
        4
        """
        start = f"{source}: " if source else ""
        for name in settings:
            check_name(name, cls.model_fields, start=start)
        try:
            return cls(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            complaint = first["msg"].removeprefix("Value error, ").replace("Input should be", "is not")
            if first["loc"]:  # else the settings do not go together
                complaint = f"parameter {first['loc'][0]}: {clip(first['input'])} {complaint}"
            raise InputError(f"{start}{complaint}") from error

    def describe(self) -> str:
        """The settings of a run in one line."""
        backbone = self.backbone
        if not backbone.isidentifier():
            backbone = backbone.rstrip("/").rpartition("/")[2]
        parts = [backbone]
        if self.layers:
            parts.append(f"lowest {self.layers} layers")
        if self.adapter == "full":
            parts.append("all weights trained")
        else:
            parts.append(f"{ADAPTERS[self.adapter]} r={self.lora_rank}")
        parts.append(f"class text {self.context_text}")
        parts.append(f"class vector {self.fusion}")
        if self.features != "none":
            parts.append(FEATURES[self.features])
        loss = f"loss {self.loss}"
        if self.contrast_weight:
            loss += f" + {self.contrast_weight:g} NT-Xent"
        if self.rating_weight:
            loss += f" + {self.rating_weight:g} ratings"
        parts.append(loss)
        parts.append(f"{self.layout} layout")
        if self.curriculum != "none":
            parts.append(f"curriculum {self.curriculum}")
        parts.append(counted(self.epochs, "epoch"))
        return ", ".join(parts)


class Parameters(Config):
    """All parameters of a study: the settings of its run, and what its notebooks do with it.

    The command line, presets and the parameters cells of the notebooks are read by this model.
    """

    name: Text = Field("sample", min_length=1)  # of the study: runs/<name> and reports/<name>
    replace: bool = False  # train anew where another configuration has this name
    # notebook 2, training
    leak: bool = False  # also train on the random split, to show the leak
    devices: int = Field(1, ge=1, le=1024)  # GPUs, or CPU processes, that train together
    report_to: Text = "none"  # experiment trackers, such as "tensorboard, mlflow"
    # notebooks 4 and 5, speed and ablation
    share: Rate = 0.25  # of the training anchors
    threads: int = Field(2, ge=1, le=1024)  # computing threads of every system
    variants: Text = "ablation"  # a file of notebooks/variants, without .yaml
    # notebooks 0 and 6, one's own phrases and search
    run: Text = ""  # folder of the run that is loaded; empty for the model that ships
    anchor: Text = "strong material"  # the phrase that is searched for
    target: Text = "steel"  # the phrase that is compared with it
    context: Text = "H04"  # CPC class in which phrases are compared
    other_context: Text = "H01"  # another class for the same pair
    candidates: Text = ""  # phrases to rank, with a semicolon between them
    form: bool = True  # show a form to type into; a page has none
    query: Text = "wireless handset"  # the phrase that a corpus is searched for
    corpus: Text = ""  # table with a column phrase, or an index; empty for the targets of the study's data
    retriever: Text = "auto"  # a sentence-transformers model; auto: the run's own, else the one that ships
    train_retriever: Literal["none", "multiple_negatives", "hard_negatives"] = "none"  # of a retriever of the run's own
    top: int = Field(20, ge=1, le=1000)  # phrases of an answer
    measured: bool = True  # measure on the anchors of validation what the search finds

    @property
    def config(self) -> Config:
        """The settings of the run alone."""
        return Config.model_validate(self.model_dump(include=set(Config.model_fields)))

    @property
    def chosen(self) -> dict[str, Any]:
        """What was set, as opposed to what has its default: name -> value."""
        return self.model_dump(include=self.model_fields_set)

    @classmethod
    def notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """The parameters that a notebook was given; `namespace` is its `globals()`.

        They are what its parameters cell assigns, and the cell that papermill puts behind it; all
        other variables of the notebook may have any name. InputError where one of these two cells
        assigns what is no parameter.
        """
        names = _assigned_parameters(namespace)
        return cls.parse({name: namespace.get(name) for name in names})


def _assigned_parameters(namespace: Mapping[str, Any]) -> list[str]:
    """Names in the last parameters cell, and in the last one of papermill's, that ran.

    IPython keeps cells as `In`.

    Voilà keeps no cells; there, all names with an annotation count.
    """
    own: list[str] = []
    injected: list[str] = []
    for source in namespace.get("In", []):
        if source.startswith("# Parameters\n"):  # the first line of papermill's cell
            injected = _assigned_names(source)
        elif _is_parameters_cell(source):
            own = _assigned_names(source)
    return [*(own or namespace.get("__annotations__", {})), *injected]


def _is_parameters_cell(source: str) -> bool:
    """Whether a cell does nothing but assign, and annotates at least one parameter."""
    statements = _statements(source)
    annotated = [name for name in _assigned_names(source, only=ast.AnnAssign) if name in Parameters.model_fields]
    return bool(annotated) and all(isinstance(statement, ast.Assign | ast.AnnAssign) for statement in statements)


def _assigned_names(source: str, *, only: type = ast.AST) -> list[str]:
    """The plain names that statements of a cell assign, of the type `only`."""
    names = []
    for statement in _statements(source):
        if not isinstance(statement, only):
            continue
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def _statements(source: str) -> list[ast.stmt]:
    """The statements of a cell; none where it is no Python."""
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError):
        return []


def check_name(name: str, known: Mapping[str, Any] | list[str], *, start: str = "") -> None:
    """InputError where `name` is none of the `known` settings, with the one nearest to it."""
    if name not in known:
        near = difflib.get_close_matches(str(name), list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "patsim_utils/config.py lists them all"
        raise InputError(f"{start}there is no parameter {clip(name)}; {hint}")
