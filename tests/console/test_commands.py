"""What the pages tell people to type is what the command line takes."""

from __future__ import annotations

import html
import re
import shlex
from importlib import resources

import typer

from gateway.cli import app

SAID = re.compile(r"^(?:.*<code>)?(gateway [^<\n]+)(?:</code>.*)?$", re.MULTILINE)


def told() -> list[str]:
    """Each command of the templates, for a tenant."""
    pages = resources.files("gateway.console").joinpath("templates")
    text = "".join(page.read_text() for page in pages.iterdir())
    return [html.unescape(re.sub(r"\{\{.*?\}\}", "acme", command)) for command in SAID.findall(text)]


def test_every_command_that_a_page_tells_is_one() -> None:
    found = told()
    assert len(found) >= 8
    for command in found:
        at, words = typer.main.get_command(app), shlex.split(command)[1:]
        while isinstance(at, typer.core.TyperGroup):
            at = at.commands[words.pop(0)]
        at.make_context(command, words)  # parses, and calls nobody
