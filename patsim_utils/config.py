"""The settings of a run: one flat model whose rules the command line, YAML files, notebooks and saved runs share."""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from patsim_utils.errors import InputError, clip

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(max_length=1000)]


class Config(BaseModel):
    """Everything that a run depends on; the defaults are the described method, with ratings, on the sample."""

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
    layout: Literal["pair", "packed", "compact", "repeated", "listwise"] = "pair"  # how rows become sequences
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
    def _no_boolean(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("true and false are no values of it")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError("it holds characters that cannot be printed")
        return value

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        if self.adapter == "hyperlora" and self.fusion == "none":
            raise ValueError("adapter 'hyperlora' needs class vectors, and fusion 'none' has none")
        if self.loss == "pearson" and self.batch_size == 1:
            raise ValueError("loss 'pearson' needs a batch_size of at least 2: one pair has no correlation")
        return self

    @property
    def listwise(self) -> bool:
        """Whether the score of a pair also depends on the other targets of its anchor: a track of its own."""
        return self.layout == "listwise" or self.features == "group"

    @classmethod
    def parse(cls, given: Mapping[str, object], *, source: str = "") -> Self:
        """The configuration with the `given` settings; text may stand for a number.

        InputError: one line with the `source`, the setting, its value and what is allowed.
        """
        start = f"{source}: " if source else ""
        for name in given:
            check_name(name, cls.model_fields, start=start)
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            complaint = first["msg"].removeprefix("Value error, ").replace("Input should be", "is not")
            where = f"parameter {first['loc'][0]}: {clip(first['input'])} " if first["loc"] else ""
            raise InputError(f"{start}{where}{complaint}") from error

    @classmethod
    def notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """The configuration that a notebook's parameters cell describes; `namespace` is its `globals()`.

        Its parameter `more` holds further settings, such as "lora_rank: 16, beta: .5". A name that is annotated as a
        parameter is but none of Config, or a plain value whose name nearly is one, is a misspelt setting: InputError.
        """
        own = ("name", "more", "leak", "devices", "report_to", "replace", "show_pairs", "share", "variants", "threads")
        own += ("query", "context", "corpus", "retriever", "train_retriever", "top", "measured")
        known = [*cls.model_fields, *own]
        plain = [name for name, value in namespace.items() if isinstance(value, str | int | float) and name[0] != "_"]
        near = [name for name in plain if difflib.get_close_matches(name, known, n=1, cutoff=0.75)]
        for name in [*namespace.get("__annotations__", {}), *near]:
            check_name(name, known)
        settings = {name: namespace[name] for name in cls.model_fields if name in namespace}
        return cls.parse(settings | unpack(str(namespace.get("more", ""))))

    def describe(self) -> str:
        """The settings of a run in one line."""
        names = {"lora": "LoRA", "lora_all": "LoRA on all layers", "hyperlora": "HyperLoRA"}
        losses = f"loss {self.loss}"
        losses += f" + {self.contrast_weight:g} NT-Xent" if self.contrast_weight else ""
        losses += f" + {self.rating_weight:g} ratings" if self.rating_weight else ""
        parts = [
            self.backbone if self.backbone.isidentifier() else self.backbone.rstrip("/").rpartition("/")[2],
            f"lowest {self.layers} layers" if self.layers else "",
            f"{names[self.adapter]} r={self.lora_rank}" if self.adapter in names else "all weights trained",
            f"class text {self.context_text}",
            f"class vector {self.fusion}",
            {"none": "", "similarity": "similarity features", "group": "features of the group"}[self.features],
            losses,
            f"{self.layout} layout",
            f"curriculum {self.curriculum}" if self.curriculum != "none" else "",
            f"{self.epochs} epoch{'s' * (self.epochs > 1)}",
        ]
        return ", ".join(part for part in parts if part)


def check_name(name: str, known: Mapping[str, Any] | list[str], *, start: str = "") -> None:
    """InputError where `name` is none of the `known` settings, with the one that was probably meant."""
    if name not in known:
        near = difflib.get_close_matches(str(name), list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted({*known}))}"
        raise InputError(f"{start}there is no parameter {clip(name)}; {hint}")


class _OnceEach(yaml.SafeLoader):
    """YAML in which no key of a mapping may stand twice: the last one would count, unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} stands twice")
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> object:
    """What a text in YAML holds; YAMLError or ValueError where it is none, or says a thing twice."""
    return yaml.load(text, _OnceEach)


def pack(settings: Mapping[str, object]) -> str:
    """Settings as the text of a notebook's parameter `more`; `unpack` reads it back."""
    return ", ".join(f"{name}: {json.dumps(value)}" for name, value in settings.items())


def unpack(text: str) -> dict[str, object]:
    """`lora_rank: 16, beta: .5` -> its settings. InputError where the text is no such list."""
    try:
        found = read_yaml("{" + text + "}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a date that is none
        raise InputError(f"parameter more: {clip(text)} is no list such as 'lora_rank: 16, beta: .5'") from error
    if empty := [name for name, value in found.items() if value is None]:
        raise InputError(f"parameter more: {clip(empty[0])} has no value; write 'lora_rank: 16, beta: .5'")
    return {str(name): value for name, value in found.items()}
