"""BERT (Devlin et al. 2018, arXiv 1810.04805) to score with: its states are those of transformers' BertModel.

It takes what `encoder` gives to any encoder, and its tensors have transformers' names. It has no
dropout and no pooler: a training takes transformers' own.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils import storage
from patsim_utils.errors import InputError
from patsim_utils.method import backbones
from patsim_utils.method.weights import files

CONFIG = "config.json"


class States(NamedTuple):
    """The states of every layer, (B, T, W) each; state 0 is the embeddings with their positions."""

    hidden_states: tuple[Tensor, ...]

    @property
    def last_hidden_state(self) -> Tensor:
        return self.hidden_states[-1]


class Settings(SimpleNamespace):
    """What config.json says, by attributes."""

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_text(folder / CONFIG, json.dumps(vars(self), indent=1))


class Attention(nn.Module):
    """Self-attention of several heads, its projection and the sum with what came in."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        names = ("query", "key", "value")
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.output = Output(width, config)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self._by_head(layer(states)) for layer in self.self.values())
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2), states)

    def _by_head(self, states: Tensor) -> Tensor:
        """(B, T, W) -> (B, heads, T, W / heads)."""
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Output(nn.Module):
    """A linear layer, whose result is added to what came into its block, and normalised."""

    def __init__(self, width: int, config: Settings) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(states) + before)


class Layer(nn.Module):
    """Attention, then two linear layers for each token."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = Output(config.intermediate_size, config)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        states = self.attention(states, mask)
        return self.output(F.gelu(self.intermediate["dense"](states)), states)


def embedding(count: int, width: int) -> nn.Embedding:
    """`count` vectors whose values are to be read; torch would first import much to draw random ones."""
    return nn.Embedding.from_pretrained(torch.empty(count, width))


class Bert(nn.Module):
    """Tokens, or their embeddings, -> the states of every layer."""

    def __init__(self, config: Settings) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": embedding(config.vocab_size, width),
                "position_embeddings": embedding(config.max_position_embeddings, width),
                "token_type_embeddings": embedding(config.type_vocab_size, width),
                "LayerNorm": nn.LayerNorm(width, eps=config.layer_norm_eps),
            }
        )
        layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    @property
    def device(self) -> torch.device:
        return self.get_input_embeddings().weight.device

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings["word_embeddings"]

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool = True,
    ) -> States:
        """`input_ids` (B, T) or `inputs_embeds` (B, T, W) -> states.

        `attention_mask`: 1 for a token and 0 for padding (B, T), or what is added to the attention
        scores (B, 1, T, T).
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        if attention_mask.ndim == 2:
            attention_mask = attention_mask[:, None, None, :] > 0
        states = inputs_embeds + self.embeddings["token_type_embeddings"].weight[0]
        states = states + self.embeddings["position_embeddings"](position_ids)
        all_states = [self.embeddings["LayerNorm"](states)]
        for layer in self.encoder["layer"]:
            all_states.append(layer(all_states[-1], attention_mask))
        return States(tuple(all_states))


def load(*, layers: int = 0) -> Bert:
    """MiniLM in evaluation mode, its lowest `layers` or all; its weights are checked by `backbones.path`."""
    folder = Path(backbones.path("minilm"))
    config = Settings(**json.loads((folder / CONFIG).read_text("utf-8")))
    if layers > config.num_hidden_layers:
        most = config.num_hidden_layers
        raise InputError(f"parameter layers: {layers} is more than the {most} of backbone 'minilm'")
    config.num_hidden_layers = layers or config.num_hidden_layers
    with torch.device("meta"):
        model = Bert(config)
    state = files.read_tensors(folder / backbones.WEIGHTS)
    model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
    return model.eval()
