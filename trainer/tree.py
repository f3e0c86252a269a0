"""Rows that begin alike, as one sequence in which a beginning is computed once. It knows token ids and nothing else.

A batch repeats itself: the system prompt is in every row, and of preferences a prompt is in its chosen and its rejected
row. Here a batch's rows become a tree of tokens. A model gets the tree as one sequence with a mask by which a token
sees those before it in its own rows and no other, so that every logit is what the row alone would give
(tests/trainer/test_batches.py, test_preference.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

WIDEST = 2048
"""The mask of a tree is as long as wide: with more tokens than these it costs more than it saves."""


@dataclass(frozen=True, slots=True)
class Tree:
    """`ids[n]` is node n's token, `parents[n]` the node before it (-1: none); `paths[r]` are row r's nodes."""

    ids: list[int]
    parents: list[int]
    positions: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Tree:
        """The tree of some rows of token ids. Parents come before their children."""
        found = cls([], [], [], [])
        known: dict[tuple[int, int], int] = {}
        for row in rows:
            node, path = -1, []
            for position, token in enumerate(row):
                parent, node = node, known.setdefault((node, token), len(found.ids))
                if node == len(found.ids):
                    found.ids.append(token)
                    found.parents.append(parent)
                    found.positions.append(position)
                path.append(node)
            found.paths.append(path)
        return found

    def inputs(self) -> dict[str, torch.Tensor]:
        """`input_ids` and `position_ids` of (1, nodes), and the `attention_mask` of (1, 1, nodes, nodes), boolean."""
        seen = torch.eye(len(self.ids), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return {
            "input_ids": torch.tensor([self.ids]),
            "position_ids": torch.tensor([self.positions]),
            "attention_mask": seen[None, None],
        }
