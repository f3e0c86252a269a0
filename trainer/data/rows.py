"""One row of somebody's data → the Examples in it. It knows the shapes rows come in, and nothing about files.

    {"messages": […], "completion": …}             adapters.Example, as a gateway exports it
    {"messages": [… , {"role": "assistant"}]}      a chat, OpenAI's: its last turn is the completion; where turns have
                                                   weights, each answer of weight 1 makes a row
    {"prompt": …, "completion": …}                 text, or lists of messages; with "label", KTO's
    {"prompt": …, "chosen": …, "rejected": …}      text, or lists of messages; without prompt: two whole chats
    {"instruction": …, "input": …, "output": …}    alpaca; input may be absent; also with history, chosen and rejected
    {"conversations": [{"from": …, "value": …}]}   ShareGPT
    {"input": {"messages"}, "preferred_output": …, "non_preferred_output": …}   OpenAI's preferences
    {"input": {"messages"}, "output": …}           TensorZero, alone or with feedback (trainer/data/logged.py)

Beside these: "system" (unless the chat brings one), "unit", "weight", "label"; other keys are named as unused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from adapters.examples import Example
from trainer.data import logged
from trainer.data.turns import TOOL_CALL, BadRow, chat, last_turn, opened, text, together, turns

SHAPES = (
    "messages · prompt and completion · prompt, chosen and rejected · instruction, input and output · conversations"
    " · input, preferred_output and non_preferred_output · input and output of TensorZero · adapters.Example"
)
TOOLS = "with tools, which no recipe learns from"
SILENT = "chats without an answer of weight 1"
_CARRIED = ("unit", "weight", "label", "alias", "variant")
_BESIDE = frozenset({*_CARRIED, "system"})
_NO_TOOLS: tuple[Any, ...] = (None, "", "null", "[]", [], {})


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a row held. `left` says by reason what of it is no Example, `earlier` how many answers before the last one
    of a chat are not learnt from, `unused` which of its keys nobody read."""

    shape: str
    examples: list[Example]
    left: list[str] = field(default_factory=list)
    earlier: int = 0
    unused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are read. `columns` are our names for keys, and theirs; numbers from `good_from` on are good labels."""

    system: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    good_from: float | None = None


def examples_of(row: Mapping[str, Any], how: Reading | None = None) -> Parsed:
    """The row as Examples: "seed", "label" or "preference". Raises `BadRow`, and nothing else."""
    how = how or Reading()
    if how.columns:
        ours = {our: row[their] for our, their in how.columns.items() if their in row}
        row = {key: value for key, value in row.items() if key not in how.columns.values()} | ours
    if "messages" in row and ("completion" in row or "kind" in row):
        return Parsed("adapters.Example", [_checked(dict(row))])
    try:
        return _read(row, how)
    except RecursionError:
        raise BadRow("it is nested too deeply") from None


def _read(row: Mapping[str, Any], how: Reading) -> Parsed:
    if any(row.get(key) not in _NO_TOOLS for key in ("tools", "functions")):
        return Parsed("messages with tools", [], [TOOLS])
    if "chosen" in row and "rejected" in row:
        return _preference(row, how)
    if isinstance(row.get("input"), Mapping) and "preferred_output" in row:
        return _openai_preference(row, how)
    if "output" in row and (given := logged.asked(row.get("input"))) is not None:
        return _tensorzero(row, given, how)
    if "messages" in row:
        return _weighted(row, how)
    if "conversations" in row:
        told = _sharegpt(row["conversations"])
        return _one(row, "conversations", told[:-1], last_turn(told)[1], how, {"conversations"})
    if "prompt" in row and "completion" in row:
        asked, answer = together(chat(row["prompt"]), row["completion"], "completion")
        return _one(row, "prompt and completion", asked, answer, how, {"prompt", "completion"})
    if "instruction" in row and "output" in row:
        used = {"instruction", "input", "output", "history"}
        return _one(row, "instruction and output", _instruction(row), text(row["output"], "output"), how, used)
    found = ", ".join(sorted(map(str, row))[:8]) or "nothing"
    if "value" in row and ("target_id" in row or "inference_id" in row):
        raise BadRow("it is feedback without its inference; join the two tables by the inference's id")
    raise BadRow(f"its keys ({found[:120]}) make no row; rename them (data.columns); shapes are {SHAPES}")


def _weighted(row: Mapping[str, Any], how: Reading) -> Parsed:
    """A chat. With weights on turns: a row for each answer that has not weight 0, as OpenAI trains them."""
    told = turns(row["messages"], "messages")
    weights = [message.pop("weight", None) for message in told]
    if any(weight not in (None, 0, 1) for weight in weights):
        raise BadRow("the weight of a message is neither 0 nor 1")
    answers = [n for n, message in enumerate(told) if message.get("role") == "assistant"]
    if any(weight is not None for weight in weights):
        wanted = [n for n in answers if weights[n] != 0]
        if not wanted:
            return Parsed("messages", [], [SILENT])
    else:
        if not _calls(told[-1]):
            last_turn(told)
        wanted = answers[-1:]
    left = [TOOL_CALL for n in wanted if _calls(told[n])]
    wanted = [n for n in wanted if not _calls(told[n])]
    if any(n == 0 for n in wanted):
        raise BadRow("the chat begins with the assistant's answer")
    rows = [_one(row, "messages", told[:n], last_turn(told[: n + 1])[1], how, {"messages"}) for n in wanted]
    examples = [example for part in rows for example in part.examples]
    unused = rows[0].unused if rows else frozenset()
    return Parsed("messages", examples, left, len(answers) - len(wanted) - len(left), unused)


def _calls(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant" and bool(message.get("tool_calls") or message.get("function_call"))


def _preference(row: Mapping[str, Any], how: Reading) -> Parsed:
    used = {"chosen", "rejected", "prompt", "instruction", "input", "history", "conversations"}
    chosen, rejected = row["chosen"], row["rejected"]
    if "instruction" in row:
        asked = _instruction(row)
    elif "conversations" in row:
        asked = _sharegpt(row["conversations"])
        chosen, rejected = (_sharegpt([side]) if isinstance(side, Mapping) else side for side in (chosen, rejected))
    elif isinstance(chosen, list) and isinstance(rejected, list) and max(len(chosen), len(rejected)) > 1:
        asked, chosen, rejected = _implicit(row, turns(chosen, "chosen"), turns(rejected, "rejected"))
    elif "prompt" in row:
        asked = chat(row["prompt"])
    else:
        raise BadRow("chosen and rejected have no prompt; give one, or make both of them whole chats")
    _, better = together(asked, chosen, "chosen answer")
    asked, worse = together(asked, rejected, "rejected answer")
    return _one(row, "chosen and rejected", asked, better, how, used, rejected=worse)


def _implicit(row: Mapping[str, Any], chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> Any:
    """TRL's implicit prompt: what both chats begin with. A prompt beside them may only say the same again."""
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("chosen and rejected differ before their last turn; a pair answers one prompt")
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt not in [message.get("content") for message in chosen[:-1]]:
        raise BadRow("the prompt is not the one that chosen and rejected begin with")
    if isinstance(prompt, list) and prompt != chosen[:-1]:
        raise BadRow("the prompt is not the one that chosen and rejected begin with")
    return chosen[:-1], chosen[-1:], rejected[-1:]


def _openai_preference(row: Mapping[str, Any], how: Reading) -> Parsed:
    asked = row["input"]
    if asked.get("tools"):
        return Parsed("preferred_output", [], [TOOLS])
    messages = turns(asked.get("messages"), "input.messages")
    _, better = together(messages, row["preferred_output"], "preferred_output")
    _, worse = together(messages, row.get("non_preferred_output"), "non_preferred_output")
    used = {"input", "preferred_output", "non_preferred_output"}
    return _one(row, "preferred_output", messages, better, how, used, rejected=worse)


def _tensorzero(row: Mapping[str, Any], asked: Mapping[str, Any], how: Reading) -> Parsed:
    read = logged.read(row, asked, good_from=how.good_from)
    if read.has_tools:
        return Parsed("TensorZero", [], [TOOLS])
    about = {key: value for key, value in read.about.items() if value is not None}
    if row.get("unit") not in (None, ""):
        about["unit"] = _unit(row["unit"])
    rows = [_made(row, read.messages, how, about | answer) for answer in read.answers]
    return Parsed("TensorZero", rows, read.left, 0, frozenset(map(str, row)) - logged.USED - _BESIDE)


def _one(
    row: Mapping[str, Any],
    shape: str,
    messages: list[dict[str, Any]],
    completion: str,
    how: Reading,
    used: set[str],
    rejected: str | None = None,
) -> Parsed:
    carried = {key: row[key] for key in _CARRIED if row.get(key) not in (None, "")}
    if "unit" in carried:
        carried["unit"] = _unit(carried["unit"])
    if rejected is not None:
        carried.pop("label", None)
        carried |= {"kind": "preference", "rejected": rejected}
    elif "label" in carried:
        carried |= {"kind": "label", "label": logged.judged(carried["label"], how.good_from)}
    made = _made(row, messages, how, {"completion": completion, "kind": "seed", **carried})
    return Parsed(shape, [made], unused=frozenset(map(str, row)) - used - _BESIDE)


def _made(row: Mapping[str, Any], messages: Sequence[dict[str, Any]], how: Reading, fields: dict[str, Any]) -> Example:
    for what in ("completion", "rejected"):
        if what in fields and not fields[what].strip():
            raise BadRow(f"the {what} is empty")
    prompt = row.get("system") or how.system
    if prompt is not None:
        messages = opened(messages, text(prompt, "system"))
    return _checked({"messages": messages, **fields})


def _instruction(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    asked = text(row["instruction"], "instruction")
    given = text(row.get("input") or "", "input")
    before = []
    for turn in row.get("history") or []:
        if not isinstance(turn, Sequence) or isinstance(turn, str) or len(turn) != 2:
            raise BadRow("history is not a list of pairs of instruction and output")
        before += [
            {"role": "user", "content": text(turn[0], "history")},
            {"role": "assistant", "content": text(turn[1], "history")},
        ]
    return [*before, *chat(f"{asked}\n\n{given}" if given else asked)]


_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool"}


def _sharegpt(told: Any) -> list[dict[str, Any]]:
    if not isinstance(told, list) or not told or not all(isinstance(turn, Mapping) for turn in told):
        raise BadRow("conversations is not a list of turns")
    if all("role" in turn for turn in told):
        return [dict(turn) for turn in told]
    return [
        {
            "role": _SPEAKERS.get(str(turn.get("from")), str(turn.get("from"))[:40]),
            "content": text(turn.get("value"), "value of a turn"),
        }
        for turn in told
    ]


def _unit(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRow("the unit (whose row it is) is neither text nor a whole number")
    return str(value)


def _checked(fields: dict[str, Any]) -> Example:
    try:
        example = Example.model_validate(fields)
        # A half of a surrogate pair passes every check of a str, and then no tokenizer or file takes it.
        example.to_json().encode("utf-8")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:80]
        raise BadRow(f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from None
    except UnicodeEncodeError:
        raise BadRow("it holds half of a character (a lone surrogate)") from None
    except (ValueError, OverflowError) as error:  # a number JSON has no word for, or one too long to write
        raise BadRow(f"it cannot be written as JSON ({str(error)[:80]})") from None
    return example
