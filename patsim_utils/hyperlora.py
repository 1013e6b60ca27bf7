"""HyperLoRA: the CPC class scales the ranks of every LoRA update, so that a field has an adapter of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class RankScale(nn.Module):
    """delta W = B diag(1 + V c) A in each adapted layer, with the class vector c and V zero at the start.

    So it starts exactly as plain LoRA, and a class without a vector (`unknown`: c = 0) stays there. After Hyper-CL
    (Yoo et al. 2024, arXiv 2403.09490) and HyperLoader (arXiv 2407.01411), with one scale a rank in place of a
    generated matrix.

    Args:
        encoder: with peft's LoRA layers in place; their A gets a hook.
        dim: length of the class vector.
    """

    def __init__(self, encoder: nn.Module, *, dim: int) -> None:
        super().__init__()
        sites = [a for layer in encoder.modules() if isinstance(layer, LoraLayer) for a in layer.lora_A.values()]
        self.ranks = [site.out_features for site in sites]
        self.project = nn.Linear(dim, sum(self.ranks), bias=False)
        nn.init.zeros_(self.project.weight)
        self.scales: tuple[Tensor, ...] = ()
        for number, site in enumerate(sites):
            site.register_forward_hook(partial(self._scale, number))

    def _scale(self, number: int, site: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return output * self.scales[number][:, None].to(output.dtype) if self.scales else output  # (B, T, r)

    @contextmanager
    def of(self, vectors: Tensor) -> Iterator[None]:
        """While it lasts, sequence b of the encoder's batch is adapted to the class vector b; vectors (B, dim)."""
        self.scales = torch.split(1 + self.project(vectors), self.ranks, dim=-1)
        try:
            yield
        finally:
            self.scales = ()
