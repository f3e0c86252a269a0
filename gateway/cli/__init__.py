"""The command `gateway`: `serve`, and clients of the control plane's HTTP interface that print just the result.

Everything but typer is imported inside the commands, so that `--help` and a typing error answer at once.
"""

from __future__ import annotations

import typer

from gateway.cli import adapters, aliases, experiments, reading, serve, tenants, users, verdicts

app = typer.Typer(
    name="gateway",
    help="Serve one base model to many tenants with hot-swapped LoRA adapters, and compare them on live traffic.\n\n"
    "All commands but `serve` speak to a running gateway: GATEWAY_URL (http://127.0.0.1:8080) and GATEWAY_ADMIN_KEY.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(tenants.keys, name="keys")
app.add_typer(tenants.metrics, name="metrics")
app.add_typer(adapters.app, name="adapters")
app.add_typer(aliases.app, name="aliases")
experiments.app.command("verdict")(verdicts.verdict)
experiments.app.command("power")(verdicts.power)
app.add_typer(experiments.app, name="experiments")
app.add_typer(users.app, name="users")
app.command("lineage")(users.lineage)
app.command("export")(reading.export)
app.command("audit")(reading.audit)
app.command("engine")(reading.engine)


def main() -> None:
    """The console script."""
    app()
