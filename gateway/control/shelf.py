"""The adapter store as the control plane asks it: off the event loop, and with its refusals in the gateway's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from adapters.errors import AdapterMissing, ContractError, InvalidRef, StoreUnavailable
from gateway.errors import AdapterRefused, InvalidRequest, NotFound, Unavailable

P = ParamSpec("P")
T = TypeVar("T")


async def in_store(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call of `adapters` in a thread. Raises `NotFound`, `InvalidRequest`, `AdapterRefused`,
    `Unavailable`, each with the contract's own sentence.
    """
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except AdapterMissing as error:
        raise NotFound(str(error), param="ref") from error
    except InvalidRef as error:
        raise InvalidRequest(str(error), param="ref") from error
    except StoreUnavailable as error:
        raise Unavailable(str(error), code="adapter_store_away") from error
    except ContractError as error:
        raise AdapterRefused(str(error)) from error
