"""What an engine is started with."""

from __future__ import annotations

from pathlib import Path

from gateway.engine.command import vllm_command
from gateway.settings import EngineSettings, Settings


def test_the_operators_arguments_and_variables_win_over_ours(tmp_path: Path) -> None:
    mine = EngineSettings(args=["--max-loras", "7"], env={"VLLM_PLUGINS": "tuneloop,other"}, max_lora_rank=16)
    command, env = vllm_command(Settings(home=tmp_path, model_path=tmp_path, engine=mine), tmp_path / "e.sock")
    assert command[command.index("--model") + 1] == str(tmp_path)
    assert command[command.index("--max-lora-rank") + 1] == "16"
    assert command[-2:] == ["--max-loras", "7"]
    assert env["VLLM_PLUGINS"] == "tuneloop,other"
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"


def test_an_engine_of_its_own_environment_gets_no_flags_for_a_cpu_it_does_not_have(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    _, env = vllm_command(Settings(home=tmp_path, engine=EngineSettings(python=str(bare))), tmp_path / "e.sock")
    assert not [name for name in env if "CPU" in name]
