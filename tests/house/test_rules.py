"""The house rules that neither ruff, mypy nor import-linter can check. Each failure lists every place and what to do.

A rule that must be broken is broken in the open: `# long because: …` for length, a reason after a suppression.
"""

from __future__ import annotations

import ast
import gc
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("adapters", "gateway", "trainer")
THIS = "tests/house/test_rules.py"

MAX_FUNCTION = 40
MAX_FILE = 300
LONG = "long because:"
BANNED_WORDS = frozenset({"utils", "helpers", "common", "misc", "manager", "handler", "service", "core"})
BANNED_WORDS |= {word.removesuffix("s") for word in BANNED_WORDS} | {f"{word}s" for word in BANNED_WORDS}

# Spelled in pieces, so that this file keeps its own rules.
PRIVATE_PATHS = ("/" + "work/", "/tmp/" + "tool", "/" + "root/")
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("download", "pytorch", "org"),
        ("static", "crates", "io"),
        ("mirrors", "aliyun", "com"),
    )
)
SQL = re.compile(
    r"(?s)\s*(?:with\b.+\bas\s*\(.+\b)?(?:"
    r"select\b.+\bfrom\b|insert\s+into\b|update\s+\S+\s+set\b|delete\s+from\b|truncate\s+\w+"
    r"|(?:create|drop|alter)\s+(?:temp\w*\s+|unique\s+)?(?:table|index|schema|view|type|function|trigger)\b"
    r"|copy\s+\S+\s+(?:from|to|\()|listen\s+\w+\s*\Z|notify\s+\w+|select\s+\w+\(.*\)\s*\Z)",
    re.IGNORECASE,
)


@cache
def tracked() -> tuple[str, ...]:
    """Every file that is or is about to be in the repository, as a path from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(sorted(name for name in listed if (ROOT / name).is_file()))


def python_files(*rooms: str) -> list[str]:
    return [name for name in tracked() if name.endswith(".py") and (not rooms or name.split("/")[0] in rooms)]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8", errors="replace")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), name)


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    """Everything in a file, walked through once for all rules."""
    return tuple(ast.walk(tree(name)))


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """A million nodes are not carried through the rest of the run; while they grow, nothing of them is garbage."""
    gc.disable()
    yield
    for kept in (nodes, tree, text):
        kept.cache_clear()
    gc.enable()


def nothing(found: list[str], rule: str) -> None:
    assert not found, rule + ":\n  " + "\n  ".join(found)


def functions(name: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int, str]]:
    """Each function with its length in lines, its docstring not counted, and its source."""
    lines = text(name).splitlines()
    for node in nodes(name):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            yield node, length, "\n".join(lines[node.lineno - 1 : node.end_lineno])


def test_functions_fit_on_a_page() -> None:
    found = [
        f"{name}:{node.lineno} {node.name} has {length} lines"
        for name in python_files()
        for node, length, source in functions(name)
        if length > MAX_FUNCTION and LONG not in source
    ]
    nothing(found, f"at most {MAX_FUNCTION} lines beside the docstring: split it, or say `# {LONG} …` inside")


def test_files_stay_short() -> None:
    found = [
        f"{name} has {lines} lines"
        for name in python_files()
        if (lines := text(name).count("\n")) > MAX_FILE and f"# {LONG}" not in text(name)
    ]
    nothing(found, f"at most {MAX_FILE} lines: split it, or say `# {LONG} …` in it")


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_nothing_is_named_by_a_word_that_says_nothing() -> None:
    found = []
    for name in python_files():
        found += [name for part in Path(name).with_suffix("").parts if words(part) & BANNED_WORDS]
        found += [
            f"{name}:{node.lineno} class {node.name}"
            for node in nodes(name)
            if isinstance(node, ast.ClassDef) and words(node.name) & BANNED_WORDS
        ]
    nothing(found, f"name it after what it is; these words are banned: {', '.join(sorted(BANNED_WORDS))}")


def docstrings(name: str) -> set[int]:
    """The ids of the nodes that are documentation: bare strings."""
    return {id(node.value) for node in nodes(name) if isinstance(node, ast.Expr)}


def literals(name: str) -> Iterator[tuple[int, str]]:
    """Every string literal that is not documentation; of an f-string, its fixed parts with a word for each hole."""
    skipped = docstrings(name)
    for node in nodes(name):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = (str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
            yield node.lineno, "".join(parts)
    for node in nodes(name):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def test_sql_lives_in_the_store() -> None:
    found = [
        f"{name}:{line} {literal.strip()[:60]!r}"
        for name in python_files(*ROOMS)
        if not name.startswith("gateway/store/")
        for line, literal in literals(name)
        if SQL.match(literal)
    ]
    nothing(found, "SQL belongs into gateway/store/")


@pytest.mark.parametrize(
    ("literal", "is_sql"),
    [
        ("SELECT id FROM tenants", True),
        ("\n  with rows as (select 1) select * from rows", True),
        ("insert into x values ($1)", True),
        ("delete from x where id = 1", True),
        ("LISTEN tuneloop_snapshot", True),
        ("select pg_notify($1, $2)", True),
        ("select a variant from the alias", True),  # the price of a simple rule: put it otherwise
        ("Select a model.", False),
        ("update the base model", False),
        ("delete the version", False),
        ("copy this line from there", False),
    ],
)
def test_the_sql_rule_knows_sql_from_prose(literal: str, is_sql: bool) -> None:
    assert (SQL.match(literal) is not None) is is_sql


def environment_reads(name: str) -> Iterator[int]:
    """Lines that look something up in the environment. Handing a child the whole of it (`{**os.environ}`,
    `dict(os.environ)`, `os.environ.items()`, `os.environ | …`) is no lookup: every child must be given a PATH."""
    handed_on: set[int] = set()
    for node in nodes(name):
        if isinstance(node, ast.Dict):
            handed_on |= {id(value) for key, value in zip(node.keys, node.values, strict=True) if key is None}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            handed_on |= {id(argument) for argument in node.args}
        elif isinstance(node, ast.Attribute) and node.attr in ("items", "copy"):
            handed_on.add(id(node.value))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            handed_on |= {id(node.left), id(node.right)}
    for node in nodes(name):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            if node.attr in ("environ", "getenv", "environb") and id(node) not in handed_on:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for one in node.names if one.name in ("environ", "getenv", "environb"))


def test_the_environment_is_read_in_one_place() -> None:
    found = [
        f"{name}:{line}"
        for name in python_files(*ROOMS)
        if name not in ("gateway/settings.py", "trainer/config.py")
        for line in environment_reads(name)
    ]
    nothing(found, "only gateway/settings.py and trainer/config.py read os.environ: hand the value in")


def test_every_module_says_what_it_is() -> None:
    found = [name for name in python_files(*ROOMS) if text(name).strip() and not ast.get_docstring(tree(name))]
    nothing(found, "open the module by saying what it is and what it does not know")


def test_no_file_names_this_machine_or_a_registry() -> None:
    found = [
        f"{name}: {needle}" for name in tracked() for needle in (*PRIVATE_PATHS, *REGISTRIES) if needle in text(name)
    ]
    nothing(found, "paths of one machine and hosts of registries do not belong into the repository")


def test_every_test_directory_is_a_package() -> None:
    """Without `__init__.py`, tests/gateway shadows gateway."""
    wanted = {str(folder) for name in python_files("tests") for folder in Path(name).parents if folder.name}
    found = [folder for folder in sorted(wanted) if not (ROOT / folder / "__init__.py").exists()]
    nothing(found, "add an empty __init__.py")


SUPPRESSION = re.compile(
    r"#\s*(?P<kind>noqa|type:\s*ignore)(?P<code>:\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*|\[[\w, -]+\])?(?P<rest>.*)"
)


def suppressions(name: str) -> Iterator[tuple[int, re.Match[str]]]:
    for number, line in enumerate(text(name).splitlines(), 1):
        match = SUPPRESSION.search(line)
        if match:
            yield number, match


def test_a_suppression_has_a_code_and_a_reason() -> None:
    found = [
        f"{name}:{line} {match[0][:80]}"
        for name in python_files()
        if name != THIS
        for line, match in suppressions(name)
        if match["code"] is None or len(re.findall(r"[A-Za-z]{2,}", match["rest"])) < 2
    ]
    nothing(
        found,
        "write the code and, after it, the reason: `# noqa: S603 - the reason`, `# type: ignore[x]  # the reason`",
    )


def test_background_work_belongs_to_a_task_group() -> None:
    """ruff bans the functions by name; this finds `loop.create_task` and bare threads too."""
    found = []
    for name in python_files("gateway", "adapters"):
        for node in nodes(name):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            is_loop = (isinstance(owner, ast.Name) and owner.id in ("asyncio", "loop")) or (
                isinstance(owner, ast.Call) and "loop" in ast.unparse(owner.func)
            )
            if node.func.attr in ("create_task", "ensure_future") and is_loop:
                found.append(f"{name}:{node.lineno}")
    nothing(found, "start it in the app's TaskGroup (DESIGN §3.9)")


def test_no_file_is_left_unfinished() -> None:
    marks = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    found = [name for name in python_files() if marks.search(text(name))]
    nothing(found, "finish it, or write an issue")


def test_tests_do_not_patch() -> None:
    found = []
    for name in python_files("tests"):
        for node in nodes(name):
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("unittest.mock", "mock"))
            asked = isinstance(node, ast.arg) and node.arg in ("monkeypatch", "mocker")
            if imported or asked:
                found.append(f"{name}:{getattr(node, 'lineno', 0)}")
    nothing(found, "use the shipped fake, or hand the thing in (DESIGN §6.7)")
