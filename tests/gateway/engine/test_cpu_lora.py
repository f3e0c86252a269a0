"""LoRA arithmetic on a CPU against the plainest reference: one row at a time, in double precision."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

SLOTS, MAX_RANK, INPUTS, WIDTHS = 3, 16, 24, (10, 6, 6)


@pytest.fixture(scope="module")
def lora_types() -> tuple[Any, Any]:
    from vllm.lora.layers import LoRAMapping

    from gateway.engine.cpu_lora import GroupedLora

    return GroupedLora, LoRAMapping


def stacks(ranks: list[int], width: int, seed: int) -> tuple[Any, Any]:
    """Padded A (slots, 1, max rank, inputs) and B (slots, 1, width, max rank) with the given true ranks."""
    random = torch.Generator().manual_seed(seed)
    a = torch.zeros(SLOTS, 1, MAX_RANK, INPUTS)
    b = torch.zeros(SLOTS, 1, width, MAX_RANK)
    for slot, rank in enumerate(ranks):
        a[slot, 0, :rank] = torch.randn(rank, INPUTS, generator=random)
        b[slot, 0, :, :rank] = torch.randn(width, rank, generator=random)
    return a, b


def reference(y: Any, x: Any, a: Any, b: Any, slots: list[int]) -> Any:
    """y + x Aᵀ Bᵀ, row by row; slot -1 is the base model and adds nothing."""
    rows = [
        row.double() + (a[s, 0].double() @ v.double() @ b[s, 0].double().T if s >= 0 else 0)
        for row, v, s in zip(y, x, slots, strict=True)
    ]
    return torch.stack(rows)


def wrapper(lora_types: tuple[Any, Any], slots: list[int], samples: list[int]) -> Any:
    """A wrapper that has been told which slot each row (and each sampled row) of the step uses."""
    grouped, mapping = lora_types
    punica = grouped(64, 64, "cpu")
    ids = [slot + 1 for slot in slots]  # adapter numbers count from 1; 0 is the base model
    step = mapping(tuple(ids), tuple(slot + 1 for slot in samples), is_prefill=True)
    punica.update_metadata(step, [1, 2, 3], SLOTS, 100)
    return punica


@pytest.mark.parametrize(
    "slots",
    [[-1, -1], [0, 0, 0], [2], [-1, 2, 2, -1], [0, 1, 0, 1, -1, 2], [2, -1, 0, 0, 1, -1, 2]],
    ids=lambda slots: ",".join(map(str, slots)),
)
def test_each_row_gets_its_own_adapter_and_the_base_gets_none(lora_types: tuple[Any, Any], slots: list[int]) -> None:
    punica = wrapper(lora_types, slots, slots)
    layers = [stacks([4, 16, 0], width, seed) for seed, width in enumerate(WIDTHS)]
    x = torch.randn(len(slots), INPUTS)
    y = torch.randn(len(slots), sum(WIDTHS))
    parts = zip(y.split(WIDTHS, dim=1), layers, strict=True)
    wanted = torch.cat([reference(part, x, a, b, slots) for part, (a, b) in parts], dim=1)
    punica.add_lora_linear(y, x, tuple(a for a, _ in layers), tuple(b for _, b in layers), 1.0, WIDTHS)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-4)


def test_weights_that_were_replaced_in_place_are_seen(lora_types: tuple[Any, Any]) -> None:
    punica = wrapper(lora_types, [1, 1], [1])
    a, b = stacks([2, 2, 2], 10, seed=1)
    x = torch.randn(2, INPUTS)
    punica.add_lora_linear(torch.zeros(2, 10), x, (a,), (b,), 1.0, (10,))
    new_a, new_b = stacks([1, 9, 1], 10, seed=2)
    a[1] = 0  # as vLLM does: it clears the slot, then copies into a part of it
    a[1, 0, :9].copy_(new_a[1, 0, :9])
    b[1].copy_(new_b[1])
    y = torch.zeros(2, 10)
    punica.add_lora_linear(y, x, (a,), (b,), 1.0, (10,))
    torch.testing.assert_close(y.double(), reference(torch.zeros(2, 10), x, a, b, [1, 1]), rtol=1e-4, atol=1e-4)


def test_logits_and_embeddings_follow_the_same_rule(lora_types: tuple[Any, Any]) -> None:
    slots, samples = [0, 0, -1, 2], [0, -1, 2]
    punica = wrapper(lora_types, slots, samples)
    a, b = stacks([3, 5, 16], 12, seed=3)
    x, y = torch.randn(3, INPUTS), torch.randn(3, 12)
    wanted = reference(y, x, a, b, samples)
    punica.add_lora_logits(y, x, a, b, 1.0)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-4, atol=1e-4)
    low, z = torch.randn(4, MAX_RANK), torch.randn(4, 12)
    added = [low[i].double() @ b[s, 0].double().T if s >= 0 else torch.zeros(12) for i, s in enumerate(slots)]
    wanted = z.double() + torch.stack(added)
    punica.add_lora_embedding(z, low, b, add_inputs=True)
    torch.testing.assert_close(z.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32"])
def test_a_rank_ends_with_the_last_row_that_is_not_zero(kind: str) -> None:
    from gateway.engine.cpu_lora import ranks_in_use

    a = torch.zeros(4, 1, MAX_RANK, INPUTS, dtype=getattr(torch, kind))
    a[0, 0, :5] = -1.0  # the sign bit counts
    a[1, 0, 7, INPUTS - 1] = 1e-6  # zero rows before it are its own
    a[2, 0, MAX_RANK - 1, 0] = 2.0
    assert ranks_in_use(a) == [5, 8, MAX_RANK, 0]
