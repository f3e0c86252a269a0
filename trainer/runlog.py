"""The run directory: what a run was, what it learnt from, and where it got to. Written so that a kill never lies.

    config.yaml      the resolved settings, without keys          data/*.jsonl   the rows, as they were split
    run.json         id, seed, versions, dataset digest, counts   lineage.json   the feedback and inferences in them
    metrics.jsonl    one line a step                              checkpoints/   what `trainer run` continues from
    result.json      held-out loss and the like, once trained     adapter/       the three files that are published

Files are replaced in one rename; metrics.jsonl only grows, and loses the steps that a continued run repeats.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from adapters.errors import ContractError
from adapters.examples import Example, dataset_digest, read_jsonl, write_jsonl
from trainer.config import RunSettings
from trainer.errors import RunConflict

_LIBRARIES = ("tuneloop", "torch", "transformers", "trl", "peft", "accelerate")


class RunDirectory:
    """An open run directory; one process at a time. Raises `RunConflict` if it holds another run, or a live one.

    The other processes of a run under torchrun open it not `owned`: they read what the main one wrote, and write none.
    """

    def __init__(self, settings: RunSettings, *, owned: bool = True) -> None:
        self.path = settings.run_dir
        self.owned = owned
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked() if owned else io.StringIO()
        self.about: dict[str, Any] = self._read("run.json") or {}
        essence = {"settings": settings.essence(), "files": _fingerprints(_files(settings))}
        if owned and self.about and self.about["essence"] != essence:
            self._give_up(essence)
        self.resumed = bool(self.about)
        if not self.resumed:
            stamp = datetime.now(UTC)
            self.about = {
                "id": f"{stamp:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
                "created_at": stamp.isoformat(),
                "seed": settings.training.seed,
                "versions": _versions(),
                "essence": essence,
            }
        shown = settings.model_dump(mode="json", exclude={"gateway": {"key"}, "gate": {"judge": {"key"}}})
        self._write("config.yaml", yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))

    @property
    def id(self) -> str:
        return str(self.about["id"])

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The finished adapter; it exists only when it is whole."""
        return self.path / "adapter"

    @property
    def start(self) -> Path | None:
        """The adapter that this run goes on from, if any."""
        return self.path / "start" if (self.path / "start").is_dir() else None

    def keep_data(
        self, train: list[Example], held_out: list[Example], counts: dict[str, int], *, test: Iterable[Example] = ()
    ) -> None:
        """Remember the rows and where they came from; from here on the run can continue without its sources."""
        (self.path / "data").mkdir(exist_ok=True)
        for name, rows in (("train", train), ("held_out", held_out), ("test", test)):
            text = io.StringIO()
            write_jsonl(rows, text)
            self._write(f"data/{name}.jsonl", text.getvalue())
        feedback = sorted({feedback for row in train for feedback in row.feedback_ids})
        inferences = sorted({row.inference_id for row in train if row.inference_id is not None})
        live = sum(row.inference_id is not None or bool(row.feedback_ids) for row in train)
        self._write("lineage.json", _json({"feedback": feedback, "inferences": inferences}))
        digest = dataset_digest(train)
        self.about |= {"dataset_digest": digest, "counts": counts, "examples": len(train), "feedback": live}
        self._write("run.json", _json(self.about))  # last: with it the run exists

    def data(self) -> tuple[list[Example], list[Example]]:
        """The rows that `keep_data` was given: to train on, and held out."""
        found = []
        try:
            for name in ("train", "held_out"):
                with (self.path / "data" / f"{name}.jsonl").open(encoding="utf-8", newline="\n") as file:
                    found.append(list(read_jsonl(file)))
            if dataset_digest(found[0]) == self.about["dataset_digest"]:
                return found[0], found[1]
        except (OSError, ContractError):
            pass  # the same to whoever runs this
        raise RunConflict(f"the rows in {self.path}/data are not those this run began with", "remove the directory")

    def metrics(self, *, up_to: int) -> TextIO:
        """The open metrics file, holding the lines of steps up to `up_to`: later ones will be trained again."""
        if not self.owned:
            return io.StringIO()
        path = self.path / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= up_to]
        self._write("metrics.jsonl", "".join(kept))
        return path.open("a", encoding="utf-8", buffering=1)

    def last_loss(self) -> float:
        """The loss of the last step in the metrics; not a number if there is none."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        losses = [json.loads(line).get("loss") for line in lines]
        return next((float(loss) for loss in reversed(losses) if loss is not None), math.nan)

    def remember(self, **facts: Any) -> None:
        """Add to run.json what a continued run must do the same way."""
        self.about |= facts
        self._write("run.json", _json(self.about))

    def keep_result(self, result: dict[str, Any]) -> None:
        self._write("result.json", _json(result))

    def result(self) -> dict[str, Any] | None:
        """What `keep_result` was given; `None` if the run is not trained yet."""
        return self._read("result.json")

    def close(self) -> None:
        """Let others have the directory."""
        self._lock.close()

    def _give_up(self, essence: dict[str, Any]) -> None:
        """Forget a run that ended before its first checkpoint: it was corrected since. Refuse any other."""
        if self.adapter.exists() or any(self.checkpoints.glob("checkpoint-*")):
            changed = "settings" if self.about["essence"]["settings"] != essence["settings"] else "data files"
            self.close()
            remedy = "name another run_dir, or remove this one"
            raise RunConflict(f"{self.path} holds a run with other {changed}", remedy)
        (self.path / "run.json").unlink()  # first: without it there is no run
        for of_it in (self.checkpoints, self.path / "start"):
            shutil.rmtree(of_it, ignore_errors=True)
        self.about = {}

    def _locked(self) -> TextIO:
        lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise RunConflict(
                f"another process is running in {self.path}", "wait for it, or name another run_dir"
            ) from error
        return lock

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return None
        return found

    def _write(self, name: str, text: str) -> None:
        """Replace a file in one step: a reader, or the next run, sees the old text or the new."""
        if not self.owned:
            return
        draft = self.path / f"{name}.draft"
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / name)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "absent"
    return found


def _files(settings: RunSettings) -> list[Path]:
    data = settings.data
    return data.train + data.held_out + data.test


def _fingerprints(files: Iterable[Path]) -> dict[str, str]:
    """Name → SHA-256 of what is in it; a file that is absent has no fingerprint, and reading it will say so."""
    found = {}
    for path in files:
        if path.is_file():
            with path.open("rb") as file:  # not read at once: a file of a million rows is as large as memory
                found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
