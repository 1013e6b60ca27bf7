"""How the CPC class enters the token embeddings: a learnable unit vector a code, added, gated or attended to.

Every way starts as the plain text model (the last projection is zero at first), so the class has to earn
its place. The code `unknown` has the zero vector: it adds nothing, and the text alone speaks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils import cpc

FUSIONS = ("add", "gate", "attention", "none")


class CpcEmbedding(nn.Module):
    """Rows of `cpc.CODES` (B,) -> unit vectors (B, dim); row 0 (`unknown`) -> the zero vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(cpc.CODES), dim, padding_idx=0)
        parents = [cpc.CODES.index(cpc.parent(code) or code) for code in cpc.CODES[1:]]
        self.register_buffer("section", torch.tensor([0, *parents]), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        return F.normalize(self.table(codes), dim=-1)

    def path(self, codes: Tensor) -> Tensor:
        """Codes (B,) -> vectors of their section and of themselves (B, 2, dim)."""
        return self(torch.stack([self.section[codes], codes], dim=1))


class Fusion(nn.Module):
    """Token embeddings (B, T, width) and codes (B,) -> token embeddings of the same shape.

    - `add`: h + U c, the described method: the projected class vector added to every token.
    - `gate`: h + sigmoid(W [h; c]) * U c, a gate a token and channel (after the GMU, arXiv 1702.01992).
    - `attention`: h + U softmax(Q h . K path) V path, tokens attend to the section and the class.
    - `none`: h.
    """

    def __init__(self, kind: str, *, width: int, dim: int) -> None:
        super().__init__()
        if kind not in FUSIONS:
            raise ValueError(f"fusion {kind!r} is none of {', '.join(FUSIONS)}")
        self.kind = kind
        if kind == "none":
            return
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
        if self.kind == "none":
            return tokens
        if self.kind == "attention":
            path = self.embedding.path(codes)  # (B, 2, dim)
            seen = F.scaled_dot_product_attention(self.query(tokens), self.key(path), self.value(path))
            return tokens + self.project(seen)
        code = self.embedding(codes)[:, None]  # (B, 1, dim)
        if self.kind == "add":
            return tokens + self.project(code)
        both = torch.cat([tokens, code.expand(-1, tokens.shape[1], -1)], dim=-1)  # (B, T, width + dim)
        return tokens + self.gate(both).sigmoid() * self.project(code)
