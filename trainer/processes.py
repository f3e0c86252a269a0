"""The processes of one run, under torchrun or accelerate launch: how they meet, and hear what the main one decided.

With one process nothing here imports torch or does anything. It knows no run and no model.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from trainer import config
from trainer.errors import TrainingFailed

_Told = TypeVar("_Told")
_MEETING = timedelta(minutes=2)
_PATIENCE = timedelta(hours=2)
"""For the main process, which reads and splits the rows while the others wait. One that dies is noticed at once."""


def told(value: _Told) -> _Told:
    """What the main process was called with, in every process: all call it at the same point, and meet there first."""
    if config.world().size == 1:
        return value
    import torch.distributed

    if not torch.distributed.is_initialized():
        _meet()
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def wait() -> None:
    """Go on when every process is here."""
    told(None)
    if config.world().size > 1:
        import torch.distributed

        torch.distributed.barrier()


def part() -> None:
    """The end of the company: without it torch complains at exit."""
    if config.world().size > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _meet() -> None:
    import torch

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(config.world().local_rank)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, size = next(torch.distributed.rendezvous("env://", timeout=_MEETING))
    except (RuntimeError, ValueError) as error:
        remedy = "start them with torchrun --standalone, or see that every node reaches the address it was given"
        raise TrainingFailed("the processes of this run do not find each other", remedy) from error
    store.set_timeout(_PATIENCE)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
