"""How the CPC class enters the model: a learnable unit vector per code.

`Fusion` adds it to token embeddings, `RankScale` (HyperLoRA) lets it scale the ranks of LoRA. Their
last projection is zero at first, so that at the start the class has no effect: `Fusion` leaves the
token embeddings as they are, and `RankScale` is plain LoRA. The code `unknown` has
the zero vector: it adds nothing, and the score comes from the text alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils.data import cpc
from patsim_utils.errors import InputError

DIM = 50  # length of a class vector
SECTION = torch.tensor([cpc.CODES.index(cpc.parent(code) or code) for code in cpc.CODES])  # of a section: itself


class CpcEmbedding(nn.Module):
    """Places in `cpc.CODES` (B,) -> unit vectors (B, dim); of place 0 (`unknown`), zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(cpc.CODES), dim, padding_idx=0)
        self.register_buffer("section", SECTION, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        return F.normalize(self.table(codes), dim=-1)

    def path(self, codes: Tensor) -> Tensor:
        """Codes (B,) -> vectors of their section and of themselves (B, 2, dim)."""
        return self(torch.stack([self.section[codes], codes], dim=1))


class CpcGraph(nn.Module):
    """The same vectors, made of titles and the CPC tree by two steps of message passing.

    H = gelu(A X W1), C = A H W2, rows normalised, with the titles' sentence vectors X
    (len(cpc.CODES), width) and A = D^-1/2 (E + I) D^-1/2 of the tree's edges E between sections and
    classes (Kipf & Welling 2017, arXiv 1609.02907, eq. 2 and 9; CPC graphs: arXiv 2308.05385). A
    class that training has hardly seen borrows from its section and its title.
    """

    def __init__(self, titles: Tensor, *, dim: int) -> None:
        super().__init__()
        code = torch.arange(len(cpc.CODES))
        edges = torch.eye(len(cpc.CODES))
        edges[code, SECTION] = 1
        edges[SECTION, code] = 1
        scale = edges.sum(1).rsqrt()
        self.register_buffer("adjacency", scale[:, None] * edges * scale, persistent=False)  # (C, C)
        self.register_buffer("titles", titles.clone())  # (C, width)
        self.first = nn.Linear(titles.shape[1], dim, bias=False)
        self.second = nn.Linear(dim, dim, bias=False)

    def forward(self, codes: Tensor) -> Tensor:
        nodes = F.gelu(self.adjacency @ self.first(self.titles))
        vectors = F.normalize(self.adjacency @ self.second(nodes), dim=-1)
        is_known = codes > 0
        return vectors[codes] * is_known[:, None]


class Fusion(nn.Module):
    """Token embeddings h (B, T, width) and codes (B,) -> token embeddings of the same shape.

    With the class vector c and the projection U:

    - `add`: h + U c, the default: the same change for every token.
    - `gate`: h + sigmoid(W [h; c]) * U c, one gate per token and channel (after the GMU, arXiv 1702.01992).
    - `graph`: h + U c with c from titles and tree (`CpcGraph`).
    - `attention`: h + U softmax(Q h . K path) V path: tokens attend to the section and the class.
    - `none`: h.

    `titles`: what `CpcGraph` starts from; the other kinds do not need it.
    """

    def __init__(self, kind: str, *, width: int, dim: int = DIM, titles: Tensor | None = None) -> None:
        super().__init__()
        self.kind = kind
        if kind == "none":
            return
        if kind == "graph":
            self.embedding = CpcGraph(titles, dim=dim)
        else:
            self.embedding = CpcEmbedding(dim)
        self.project = nn.Linear(dim, width, bias=False)
        nn.init.zeros_(self.project.weight)
        if kind == "gate":
            self.gate = nn.Linear(width + dim, width)
        if kind == "attention":
            self.query = nn.Linear(width, dim, bias=False)
            self.key = nn.Linear(dim, dim, bias=False)
            self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Tensor, codes: Tensor) -> Tensor:
        changes = {
            "gate": self._gated,
            "attention": self._attended,
            "add": self._same,
            "graph": self._same,
        }
        if self.kind == "none":
            return tokens
        return tokens + changes[self.kind](tokens, codes)

    def _same(self, tokens: Tensor, codes: Tensor) -> Tensor:
        return self.project(self.embedding(codes)[:, None])  # (B, 1, width)

    def _gated(self, tokens: Tensor, codes: Tensor) -> Tensor:
        code = self.embedding(codes)[:, None]  # (B, 1, dim)
        both = torch.cat([tokens, code.expand(-1, tokens.shape[1], -1)], dim=-1)  # (B, T, width + dim)
        return self.gate(both).sigmoid() * self.project(code)

    def _attended(self, tokens: Tensor, codes: Tensor) -> Tensor:
        path = self.embedding.path(codes)  # (B, 2, dim)
        return self.project(F.scaled_dot_product_attention(self.query(tokens), self.key(path), self.value(path)))

    @torch.inference_mode()
    def vectors(self) -> pd.DataFrame:
        """The class vectors, one row per code, without `unknown`, which is zero.

        InputError where there are none.
        """
        if self.kind == "none":
            raise InputError("fusion 'none' has learned no CPC vectors")
        codes = torch.arange(1, len(cpc.CODES), device=self.project.weight.device)
        values = self.embedding(codes).cpu().numpy()
        return pd.DataFrame(values, index=pd.Index(cpc.CODES[1:], name="code"))


class RankScale(nn.Module):
    """HyperLoRA: the update of an adapted layer is B diag(1 + V c) A, with the class vector c.

    V is zero at the start, so it starts as plain LoRA; a class without a vector (`unknown`: c = 0)
    stays plain LoRA. After Hyper-CL (Yoo et al. 2024, arXiv 2403.09490) and HyperLoader
    (arXiv 2407.01411), with one scale per rank in place of a generated matrix. `encoder` has peft's
    LoRA layers in place; the output of each A, one number per rank, is scaled by a hook.
    """

    def __init__(self, encoder: nn.Module, *, dim: int = DIM) -> None:
        from peft.tuners.lora import LoraLayer  # here, since its import takes seconds

        super().__init__()
        sites = []
        for layer in encoder.modules():
            if isinstance(layer, LoraLayer):
                sites += layer.lora_A.values()
        self.ranks = [site.out_features for site in sites]
        self.project = nn.Linear(dim, sum(self.ranks), bias=False)
        nn.init.zeros_(self.project.weight)
        self.scales: tuple[Tensor, ...] = ()
        for number, site in enumerate(sites):
            site.register_forward_hook(partial(self._scale, number))

    def _scale(self, number: int, site: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        """Scales the output (B, T, r) of a layer's A, sequence by sequence."""
        if not self.scales:
            return output
        return output * self.scales[number][:, None].to(output.dtype)

    @contextmanager
    def adapted_to(self, vectors: Tensor) -> Iterator[None]:
        """Context in which sequence b of the encoder's batch is adapted to row b of vectors (B, dim)."""
        self.scales = torch.split(1 + self.project(vectors), self.ranks, dim=-1)
        try:
            yield
        finally:
            self.scales = ()
