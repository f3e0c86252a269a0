"""The manifest: what an adapter version is made of and where it came from. Written once, at publication.

It holds no version number, since the content's address is computed over it, and no path of any machine.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from adapters import strictjson
from adapters.errors import InvalidAdapter, InvalidRef
from adapters.instants import Instant
from adapters.ref import AdapterRef

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 256 * 1024

_Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_MACHINE_PATH = re.compile(r"(?:[/~.\\]|[A-Za-z]:[/\\]|file:)")


class Lineage(BaseModel):
    """Where the weights came from. `parent` is the version (`tenant/name@version`) this one replaces or continues.

    `continues` is the version whose weights it was trained on from: it has learnt whatever that one has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: _Name
    dataset_digest: _Name
    parent: str | None = None
    continues: str | None = None
    examples: int = Field(0, ge=0, description="rows trained on")
    feedback: int = Field(0, ge=0, description="how many of them came from live feedback")
    recipe: str | None = Field(None, max_length=64, description="sft, dpo or kto")

    @field_validator("parent", "continues")
    @classmethod
    def _is_a_ref(cls, value: str | None) -> str | None:
        if value is not None:
            AdapterRef.parse(value)
        return value


class Gate(BaseModel):
    """What the trainer's gate decided, and every figure it decided by (`candidate.f1`, `incumbent.f1.low`, …).

    verdict "undecided": a trial of a run, published to be evaluated and never to be served. `reason` is a sentence,
    `compared_with` the version that it had to beat ("base" for the base model).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Literal["accepted", "refused", "undecided"]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    compared_with: str | None = None
    figures: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)


class Manifest(BaseModel):
    """`files` maps each other published file to its SHA-256 in hex. `AdapterStore.publish` fills in `files` and
    `target_modules`: PEFT writes out "all-linear" only when it saves, as short names or as full ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    base_model: _Name
    base_revision: str | None = Field(None, max_length=512)
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: list[str] = Field(default_factory=list)
    files: dict[str, _Sha256] = Field(default_factory=dict)
    lineage: Lineage
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    gate: Gate | None = None
    created_at: Instant

    @field_validator("base_model")
    @classmethod
    def _is_no_path(cls, value: str) -> str:
        if _MACHINE_PATH.match(value):
            raise ValueError("the base model is named by a path; use its public name, such as org/model")
        return value

    def to_json(self) -> bytes:
        """The file's bytes, the same for equal manifests. What is newer than the format is left out where unset."""
        fields = self.model_dump(mode="json", exclude={"gate"} if self.gate is None else None)
        for name in ("continues", "recipe"):
            if fields["lineage"][name] is None:
                del fields["lineage"][name]
        return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """The inverse of `to_json`. Raises `InvalidAdapter`."""
        try:
            if len(data) > MAX_MANIFEST_BYTES:
                raise ValueError("it is too large")
            strictjson.parse(data)
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:80]
            raise InvalidAdapter(
                f"{MANIFEST} is wrong at {where!r}: {first['msg']}; publish with this project's trainer."
            ) from error
        except (ValueError, InvalidRef) as error:
            raise InvalidAdapter(f"{MANIFEST} cannot be read: {error}; publish with this project's trainer.") from error

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest of a published or uploaded directory. Raises `InvalidAdapter`."""
        try:
            with (directory / MANIFEST).open("rb") as file:
                return cls.parse(file.read(MAX_MANIFEST_BYTES + 1))
        except FileNotFoundError as error:
            raise InvalidAdapter(f"there is no {MANIFEST}: publish with this project's trainer.") from error
