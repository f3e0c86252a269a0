"""LoRA arithmetic for vLLM's CPU build: right for mixed batches, and fast enough to be used. CUDA builds never load it.

vLLM 0.32 computes adapters on a CPU by copying, for every token, its adapter's padded weights out of a stack:
- A token of the base model has index -1, which selects the last slot: once all slots are filled, base requests that
  share a batch with an adapter's get another adapter's weights (vllm#48421, vllm#49656, both open).
- Time and memory grow with tokens x max_lora_rank: 8 chats of 53 tokens on rank 64 took 30 s where the base took 2.

Here the rows of a batch are grouped by slot once a step, and each group is two matrix products on the rank the adapter
really has. Installed by `plugin.prepare_process` through the platform's own hook for this class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

_INTEGERS = {2: torch.int16, 4: torch.int32}

Group = tuple[int, slice | torch.Tensor]
"""A slot, and the rows that use it: a slice where they are neighbours (a view), else their numbers (a copy)."""


class GroupedLora(PunicaWrapperCPU):
    """vLLM's CPU wrapper without the copy for each token; shapes and meaning are those of the overridden methods."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokens: list[Group] = []
        self._samples: list[Group] = []
        self._ranks: dict[int, tuple[int, list[int]]] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called once a step, before the layers: which rows belong to which slot."""
        super().update_metadata(*args, **kwargs)
        self._tokens = groups(self.token_lora_indices)
        self._samples = groups(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """y[rows, slice] += x[rows] @ A.T @ B.T * scale, for each slot and each slice of a packed layer."""
        offset = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            self._add(self._tokens, y[:, offset : offset + width], x, a, b, scale)
            offset += width

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_: Any,
    ) -> None:
        """The same for the language model head, on the rows that are sampled."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        self._add(self._samples, y[:, : lora_b_stacked.shape[-2]], x, lora_a_stacked, lora_b_stacked, scale)

    def add_lora_embedding(self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, **_: Any) -> None:
        """y[rows] += x[rows] @ B.T: the first product of an embedding is a look-up, done by the layer."""
        for slot, rows in self._tokens:
            b = lora_b_stacked[slot].view(lora_b_stacked.shape[-2:])
            y[rows] += functional.linear(x[rows].to(b.dtype), b).to(y.dtype)

    def _add(
        self,
        rows_by_slot: list[Group],
        y: torch.Tensor,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> None:
        if not rows_by_slot:
            return
        ranks = self._ranks_of(a)
        for slot, rows in rows_by_slot:
            rank = ranks[slot]
            if rank == 0:  # this adapter has no weights for this layer
                continue
            low = functional.linear(x[rows].to(a.dtype), a[slot, 0, :rank])
            high = functional.linear(low, b[slot, 0, :, :rank])
            if y.shape[1] < high.shape[1]:  # the head may be padded further than the logits
                high = high[:, : y.shape[1]]
            y[rows] += high.to(y.dtype) if scale == 1.0 else (high * scale).to(y.dtype)

    def _ranks_of(self, a: torch.Tensor) -> list[int]:
        """The rank in use in each slot of a stack (slots, 1, max rank, inputs); the rest is padding with zeros.

        Loading an adapter writes into the stack, which counts torch's version of it up: then it is counted again.
        """
        version, ranks = self._ranks.get(a.data_ptr(), (-1, []))
        if version != a._version:
            ranks = ranks_in_use(a)
            self._ranks[a.data_ptr()] = (a._version, ranks)
        return ranks


def ranks_in_use(a: torch.Tensor) -> list[int]:
    """For each slot of a stack (slots, 1, max rank, inputs), the number of its last row that is not padding.

    In the first step after a load every layer asks, and every stream waits for the answer. So the rows are looked at as
    integers, whose least and greatest torch finds ten times as fast as a bfloat16 that is not zero (40 µs for 450).
    """
    rows = a[:, 0].view(_INTEGERS[a.element_size()])
    used = (rows.amin(dim=2) != 0) | (rows.amax(dim=2) != 0)
    numbers = torch.arange(1, used.shape[1] + 1)
    return [int(last) for last in (used * numbers).amax(dim=1).tolist()]


def groups(indices: torch.Tensor) -> list[Group]:
    """The rows of each slot in `indices` (one slot number a row); rows of the base model, -1, are in no group."""
    found: list[Group] = []
    for slot in indices.unique().tolist():
        if slot < 0:
            continue
        rows = (indices == slot).nonzero().squeeze(1)
        first, last = int(rows[0]), int(rows[-1])
        found.append((slot, slice(first, last + 1) if last - first + 1 == len(rows) else rows))
    return found
