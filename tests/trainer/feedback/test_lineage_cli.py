"""`trainer lineage` without a gateway: what it refuses, and what run directories say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.feedback.test_traces import run_with
from trainer import cli
from trainer.errors import InvalidConfig

RUNNER = CliRunner()


def run(*words: str) -> str:
    done = RUNNER.invoke(cli.app, ["lineage", *words], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "it is not clear whose lineage this is"),
        (("--user", "a", "--unit", "b"), "it is not clear whose lineage this is"),
        (("--unit", "u1"), "nothing says where to look"),
        (("neither",), "neither is neither a run directory nor a version"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_to_name(words: tuple[str, ...], said: str):
    with pytest.raises(InvalidConfig, match=said):
        run(*words)


def test_a_user_is_looked_up_and_erased_in_run_directories_alone(tmp_path: Path):
    where = run_with(tmp_path / "a", train=["u1", "u2"])
    of = ("--unit", "u1", "--runs", str(tmp_path))
    assert run(*of).splitlines() == ["unit u1: rows in 0 adapters (no tenant was named)", f"{where}: 1 train"]
    with pytest.raises(InvalidConfig, match="nothing was erased: add --yes"):
        run(*of, "--erase")
    assert run(*of, "--erase", "--yes").splitlines() == [
        "erased unit u1",
        f"erased {where}: 1 train; this run cannot be continued",
        "to train again: what was published from these runs",
    ]
    assert json.loads(run(*of, "--json"))["runs"] == []
    with pytest.raises(InvalidConfig, match="only a gateway knows the hash of a targeting key"):
        run("--user", "ann", "--runs", str(tmp_path))


def test_the_rows_of_a_run_directory_are_lines(tmp_path: Path):
    where = run_with(tmp_path / "a", train=["u1", "u2"])
    assert [json.loads(line)["unit"] for line in run(str(where)).splitlines()] == ["u1", "u2"]
