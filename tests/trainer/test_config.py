"""Settings: what a file, `--set` and the environment say, and how a wrong one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer import config
from trainer.errors import InvalidConfig

GOOD = {"base_model": "org/model", "run_dir": "runs/1", "data.train": "rows.jsonl"}


def load(*more: tuple[str, object], environ: dict[str, str] | None = None) -> config.RunSettings:
    return config.load(None, [*GOOD.items(), *more], environ=environ or {})


def test_the_shipped_configs_run_with_what_their_first_line_names():
    for path in (*sorted(Path("trainer/configs").glob("*.yaml")), Path("loadtests/demo/triage.yaml")):
        first = path.read_text().splitlines()[0]
        assert first.startswith(f"# trainer run {path} ")
        given = [config.assignment(word) for word in first.split("--set ")[1:] for word in [word.strip()]]
        assert config.load(path, given, environ={}).recipe in path.read_text()


def test_data_files_are_found_beside_the_file_that_names_them(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "base_model: org/model\nrun_dir: r\ndata: {train: [a.jsonl, /b.csv], held_out: h.jsonl, test: t.csv}\n"
    )
    found = config.load(file, environ={}).data
    assert found.train == [tmp_path / "a.jsonl", Path("/b.csv")] and found.held_out == [tmp_path / "h.jsonl"]
    assert found.test == [tmp_path / "t.csv"]


def test_an_assignment_wins_over_the_environment_and_that_over_the_file(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "base_model: m\nrun_dir: r\ngateway: {url: http://file}\n"
        "publish: {tenant: a, name: b}\ndata: {train: a.jsonl}\n"
    )
    environ = {"GATEWAY_URL": "http://environment/", "GATEWAY_KEY": "secret"}
    assert config.load(file, environ={}).gateway.url == "http://file"
    assert config.load(file, environ=environ).gateway.url == "http://environment"
    assert config.load(file, [("gateway.url", "http://set")], environ=environ).gateway.url == "http://set"
    of_a_file = config.load(file, environ=environ | {"GATEWAY_KEY": "secret\r\n"}).gateway.key
    assert of_a_file is not None and of_a_file.get_secret_value() == "secret"


def test_a_key_is_shown_nowhere():
    found = load(
        ("gateway.url", "http://x"), ("publish.tenant", "a"), ("publish.name", "b"), environ={"GATEWAY_KEY": "s3cret"}
    )
    assert "s3cret" not in repr(found) + str(found.model_dump(mode="json")) + str(found.essence())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("training.epoch", 3), "training.epoch: there is no such setting"),
        (("training.learning_rate", -1), "training.learning_rate: Input should be greater than 0"),
        (("lora.rank", 24), "lora.rank: Input should be 1, 8, 16"),
        (("data.train", []), "no rows to train on"),
        (("data.gateway.alias", "support"), "data.gateway needs gateway.url"),
        (("gateway.url", "localhost:8080"), "begins with neither http:// nor https://"),
        (("gateway.url", "http://localhost:abc"), "gateway.url: Port could not be cast to integer value as 'abc'"),
        (("gateway.url", "https://"), "gateway.url: names no host"),
        (("gateway.key", "schlüssel"), "gateway.key: holds characters that no key has"),
        (("gateway.url", "http://x"), "publishing needs publish.tenant and publish.name"),
        (("publish.tenant", "No Slug"), "publish.tenant: use 1 to 64"),
    ],
)
def test_a_wrong_setting_is_named_and_explained(changed: tuple[str, object], said: str):
    with pytest.raises(InvalidConfig) as caught:
        load(changed)
    assert said in str(caught.value) and str(caught.value).endswith("override it with --set key=value.")


@pytest.mark.parametrize("text", ["training.epochs", "=3", "a=[1", ""])
def test_what_is_no_assignment_is_refused(text: str):
    with pytest.raises(InvalidConfig):
        config.assignment(text)


def test_a_broken_file_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("base_model: m\ndata: [\n")
    with pytest.raises(InvalidConfig, match=r"run\.yaml:3 is not YAML"):
        config.load(file, environ={})


def test_threads_places_and_keys_do_not_make_another_run():
    one = load()
    assert one.essence() == load(("training.threads", 1), ("run_dir", "runs/2"), ("model_path", "m")).essence()
    assert one.essence() != load(("training.seed", 1)).essence()
