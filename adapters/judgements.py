"""Judgements: what was asked, what was answered, and everything that was said of it, one JSON object per line.

An Example is a row to learn from; a Judged answer is the evidence behind it. The gateway exports them, oldest first;
the trainer's compiler makes Examples of them (trainer/feedback/). It knows no training method and draws no conclusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters import jsonl
from adapters.instants import Instant

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class Other(BaseModel):
    """The answer that lost a comparison; `answer` is None where its content is not kept, or it was cut.

    `same_prompt`: it answered the very messages that the winner answered.
    """

    model_config = _CONFIG

    inference_id: str
    answer: str | None
    same_prompt: bool


class Said(BaseModel):
    """One feedback. `value` fits `kind`: a bool, a number, a comment, an ideal answer, or for a preference the id of
    the answer that lost, which `over` then describes. `optimize` "min": the metric is better when smaller."""

    model_config = _CONFIG

    id: str
    metric: str
    kind: Literal["boolean", "float", "count", "comment", "demonstration", "preference"]
    optimize: Literal["max", "min"] = "max"
    about: Literal["inference", "episode"] = "inference"
    value: bool | float | str
    correction: str | None = None
    comment: str | None = None
    source: str | None = None
    over: Other | None = None
    created_at: Instant


class Judged(BaseModel):
    """One answer with all feedback on it, in the order of arrival. `complete`: the answer was given whole.

    `adapter` is the version that answered ("base" for the base model), `propensity` the probability with which its
    `variant` was chosen, `unit` the hash of the targeting key, `episode` whether it belongs to a conversation's id.
    """

    model_config = _CONFIG

    inference_id: str
    created_at: Instant
    messages: list[dict[str, Any]] = Field(min_length=1)
    answer: str | None
    complete: bool
    alias: str
    variant: str
    adapter: str | None
    experiment: str | None = None
    propensity: Annotated[float, Field(gt=0, le=1)]
    unit: str
    episode: str | None = None
    feedback: list[Said] = Field(min_length=1)

    def to_json(self) -> str:
        """The object as one line of ASCII without its end."""
        return self.model_dump_json(exclude_defaults=True, ensure_ascii=True)


def read_judged(lines: Iterable[str | bytes], *, source: str = "the gateway's export") -> Iterator[Judged]:
    """Read exported lines; blank ones are skipped. Raises `InvalidExample` as `source:line: what is wrong; …`."""
    return jsonl.read(Judged, lines, source=source, remedy="export it again from the gateway")
