"""Examples: the rows that flow from the gateway's feedback to the trainer, one JSON object per line.

An example is what somebody thought of one answer, or an answer somebody wrote. It knows nothing about chat templates
or training methods; each row says where it came from, so that an adapter can be traced back to the feedback it learnt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adapters import strictjson
from adapters.errors import InvalidExample
from adapters.instants import Instant

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
"""JSON leaves these in texts as they are, but str.splitlines and httpx's iter_lines take them for the end of a line."""

_REMEDY = "correct this line, or remove it"


class Example(BaseModel):
    """One training row. `messages` is the prompt, as a chat; `completion` the answer it is about.

    kind "demonstration": an ideal answer (a correction, or written by hand) · "label": an answer the model gave, judged
    good or bad by `label` · "preference": `completion` was preferred over `rejected` · "seed": like a demonstration,
    but no user wrote it. `adapter` is the version that answered ("base" for the base model), `propensity` the
    probability with which its `variant` was chosen, `unit` the hash of the targeting key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: list[dict[str, Any]] = Field(min_length=1)
    completion: str
    kind: Literal["demonstration", "label", "preference", "seed"] = "demonstration"
    label: bool | None = None
    rejected: str | None = None
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    inference_id: str | None = None
    feedback_ids: list[str] = Field(default_factory=list)
    alias: str | None = None
    variant: str | None = None
    adapter: str | None = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    unit: str | None = None
    created_at: Instant | None = None

    @field_validator("messages")
    @classmethod
    def _are_chat(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, message in enumerate(messages, 1):
            if message.get("role") not in ROLES:
                raise ValueError(f"message {number} has no role among {', '.join(sorted(ROLES))}")
            if not isinstance(message.get("content"), str | list | None):
                raise ValueError(f"the content of message {number} is neither text nor a list of parts")
        return messages

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.label is not None) != (self.kind == "label"):
            raise ValueError('label (true or false) goes with kind "label", and only with it')
        if (self.rejected is not None) != (self.kind == "preference"):
            raise ValueError('rejected (the worse answer) goes with kind "preference", and only with it')
        return self

    def to_json(self) -> str:
        """The row as one line without its end: keys in order, defaults left out, so that equal rows have equal text."""
        fields = self.model_dump(mode="json", exclude_defaults=True) | {"kind": self.kind}
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return _LINE_ENDS.sub(lambda end: f"\\u{ord(end[0]):04x}", text)


def read_jsonl(lines: Iterable[str | bytes], *, source: str = "examples") -> Iterator[Example]:
    """Read rows from a file or any lines; blank lines are skipped. `source` is what errors call it.

    Raises `InvalidExample` as `source:line: what is wrong; what to do`.
    """
    for number, line in enumerate(lines, 1):
        text = line if isinstance(line, str) else line.decode("utf-8", "surrogateescape")
        text = text.removeprefix("\ufeff") if number == 1 else text
        if text.strip():
            yield _parse(text, f"{source}:{number}")


def write_jsonl(examples: Iterable[Example], file: TextIO) -> int:
    """Write one row per line (UTF-8 text file); returns how many."""
    count = 0
    for example in examples:
        file.write(example.to_json() + "\n")
        count += 1
    return count


def dataset_digest(examples: Iterable[Example]) -> str:
    """`sha256:…` over the canonical rows in their order: the order is part of what a run learns from."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(example.to_json().encode("utf-8", "surrogatepass") + b"\n")
    return f"sha256:{digest.hexdigest()}"


def _parse(text: str, where: str) -> Example:
    try:
        text.encode("utf-8")
        if not isinstance(strictjson.parse(text), dict):
            raise ValueError("it is not an object")
        return Example.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:80]
        reason = first["msg"].removeprefix("Value error, ")
        raise InvalidExample(f"{where}: {key + ': ' if key else ''}{reason}; {_REMEDY}.") from error
    except UnicodeError as error:
        raise InvalidExample(f"{where}: it is not UTF-8 text; save the file as UTF-8.") from error
    except ValueError as error:
        raise InvalidExample(f"{where}: {error}; {_REMEDY}.") from error
