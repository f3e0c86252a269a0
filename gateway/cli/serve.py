"""`gateway serve`: the options that are worth a flag, over the settings from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Engine = Literal["vllm", "url", "fake"]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that serve requests.")] = None,
    engine: Annotated[Engine | None, typer.Option(help="vllm: a child; url: another's; fake: no model.")] = None,
    engine_url: Annotated[str | None, typer.Option(metavar="URL|unix:PATH", help="Means --engine url.")] = None,
    base_model: Annotated[str | None, typer.Option(metavar="NAME", help="As adapters know it.")] = None,
    model_path: Annotated[Path | None, typer.Option(metavar="DIR", help="Its files, if not from a hub.")] = None,
    home: Annotated[Path | None, typer.Option(metavar="DIR", help="Database, adapters, logs, admin.key.")] = None,
) -> None:
    """Serve until SIGTERM. What is not given comes from GATEWAY_* variables, then from defaults."""
    from pydantic import ValidationError

    from gateway import settings as settings_module
    from gateway.settings import EngineKind

    try:
        settings = settings_module.load()
    except ValidationError as error:
        first = error.errors()[0]
        name = "GATEWAY_" + "__".join(str(part).upper() for part in first["loc"])
        typer.echo(f"{name}: {first['msg']}.", err=True)
        raise typer.Exit(2) from None
    kind = EngineKind(engine) if engine else EngineKind.URL if engine_url else None
    behind = settings.engine.model_copy(update=_given(kind=kind, url=engine_url))
    flags = _given(host=host, port=port, workers=workers, base_model=base_model, model_path=model_path, home=home)

    from gateway.supervisor import serve as run

    raise typer.Exit(run(settings.model_copy(update={**flags, "engine": behind})))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
