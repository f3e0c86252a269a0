"""Lines of JSON → one kind of model, strictly: what is wrong is told with its line. It knows nothing of any kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adapters import strictjson
from adapters.errors import InvalidExample

_Model = TypeVar("_Model", bound=BaseModel)


def read(kind: type[_Model], lines: Iterable[str | bytes], *, source: str, remedy: str) -> Iterator[_Model]:
    """What each line says; blank ones are skipped.

    Raises `InvalidExample` as `source:line: what is wrong; remedy.`
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = line if isinstance(line, str) else line.decode("utf-8")
            strictjson.parse(text)
            row = kind.model_validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(part) for part in first["loc"])[:80]
            raise InvalidExample(f"{source}:{number}: {key}: {first['msg']}; {remedy}.") from None
        except ValueError as error:
            raise InvalidExample(f"{source}:{number}: {error}; {remedy}.") from None
        yield row
