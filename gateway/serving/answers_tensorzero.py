"""What `/inference` answers, TensorZero's shapes: the engine's chat completion in their words, whole or event by event.

For the record the engine's own answer is read, as for any chat. It knows nothing of requests but what is told aside.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from gateway.errors import EngineFailed
from gateway.identity import written_uuid
from gateway.serving.aside import Named
from gateway.serving.sse import Events, payloads


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    """A message, or what a stream adds to it. vLLM's name for thoughts has changed once."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None

    @property
    def thought(self) -> str | None:
        return self.reasoning or self.reasoning_content


class _Choice(msgspec.Struct):
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Completion).decode
_anything = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_REASONS = {"stop": "stop", "length": "length", "tool_calls": "tool_call", "content_filter": "content_filter"}


def worded(answer: bytes, named: Named) -> bytes:
    """A whole answer. Raises `EngineFailed` where the engine's is no chat completion."""
    told = _read(answer)
    choice = told.choices[0] if told.choices else _Choice()
    said, aside = choice.message or _Said(), named.aside
    body = _identity(named)
    if aside is not None and aside.json:
        raw = said.content or ""
        body["output"] = {"raw": raw, "parsed": _object(raw)}
    else:
        body["content"] = _content(said, aside.tools if aside is not None else frozenset())
    body["usage"] = _usage(told.usage or _Usage())
    body["finish_reason"] = _reason(choice)
    return _encode(body)


class InferenceEvents(Events):
    """A streamed answer. What is kept of it is the engine's own, as of any chat."""

    __slots__ = ("_calls", "_head", "_json")

    ends: ClassVar[bytes] = b""

    def __init__(self, *, keep: int, named: Named) -> None:
        super().__init__(wants_usage=True, keep=keep)
        self._head = b"data: " + _encode(_identity(named))[:-1] + b","
        self._json = named.aside is not None and named.aside.json
        self._calls: dict[int, str] = {}  # only the first piece of a call has its id

    def feed(self, piece: bytes) -> bytes:
        """What may go to the client now: whole events, or nothing yet."""
        if self.keep and not self.done and self.error is None:
            self._hold(piece)
        # The common piece is one event with choices in it, as `Events` tells it from the others.
        common = piece.endswith(b"}]}\n\n") and piece.startswith(b"data: {") and piece.find(b"\n\n") == len(piece) - 2
        if common and not self._tail:
            self.last = piece
            return self._chunk(_read(piece[6:]))
        return self._sift(piece)

    def _uneventful(self, buffer: bytes) -> int:
        return 0

    def _read(self, event: bytes) -> bytes:
        plain = super()._read(event)
        if self.done or self.error is not None:
            return plain
        return b"".join(self._chunk(_read(payload)) for payload in payloads(plain))

    def _chunk(self, told: _Completion) -> bytes:
        """One of theirs, or nothing where an event says nothing."""
        choice = told.choices[0] if told.choices else _Choice()
        said = choice.delta or _Said()
        chunk: dict[str, Any] = {}
        if self._json:
            chunk["raw"] = said.content or ""
        else:
            chunk["content"] = self._blocks(said)
        spoken = bool(chunk.get("raw") or chunk.get("content"))
        if told.usage is not None:
            chunk["usage"] = _usage(told.usage)
        if choice.finish_reason:
            chunk["finish_reason"] = _reason(choice)
        if not spoken and len(chunk) == 1:
            return b""
        return self._head + _encode(chunk)[1:] + b"\n\n"

    def _blocks(self, said: _Said) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        if said.thought:
            blocks.append({"type": "thought", "id": "1", "text": said.thought})
        if said.content:
            blocks.append({"type": "text", "id": "0", "text": said.content})
        for call in said.tool_calls or ():
            function = call.function or _Function()
            if call.id:
                self._calls[call.index] = call.id
            name = self._calls.get(call.index, str(call.index))
            block = {"id": name, "raw_name": function.name or "", "raw_arguments": function.arguments or ""}
            blocks.append({"type": "tool_call", **block})
        return blocks


def events(*, wants_usage: bool, keep: int, named: Named) -> Events:
    return InferenceEvents(keep=keep, named=named)


class OwnIdEvents(Events):
    """OpenAI's stream under TensorZero's names: each event's id is a UUID, and beside it stands the episode."""

    __slots__ = ("_named",)

    def __init__(self, *, wants_usage: bool, keep: int, named: Named) -> None:
        super().__init__(wants_usage=wants_usage, keep=keep)
        self._named = named

    def feed(self, piece: bytes) -> bytes:
        """What may go to the client now: whole events, or nothing yet."""
        return own_id(super().feed(piece), self._named)


def events_openai(*, wants_usage: bool, keep: int, named: Named) -> Events:
    return OwnIdEvents(wants_usage=wants_usage, keep=keep, named=named)


def own_id(answer: bytes, named: Named) -> bytes:
    """The answer, or some events of it, under TensorZero's names. Nobody but the engine knows the id before."""
    head = _identity(named)
    wanted = f'"{head["inference_id"]}","episode_id":"{head["episode_id"]}"'
    return answer.replace(b'"chatcmpl-%b"' % named.id.encode(), wanted.encode())


def _identity(named: Named) -> dict[str, Any]:
    episode = named.aside.episode if named.aside is not None else ""
    return {"inference_id": written_uuid(named.id), "episode_id": episode, "variant_name": named.variant}


def _content(said: _Said, offered: frozenset[str]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.thought:
        blocks.append({"type": "thought", "text": said.thought})
    if said.content:
        blocks.append({"type": "text", "text": said.content})
    for call in said.tool_calls or ():
        function = call.function or _Function()
        name, arguments = function.name or "", function.arguments or ""
        block: dict[str, Any] = {"id": call.id or "", "raw_name": name, "raw_arguments": arguments}
        block |= {"name": name if name in offered else None, "arguments": _object(arguments)}
        blocks.append({"type": "tool_call", **block})
    return blocks


def _usage(usage: _Usage) -> dict[str, Any]:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}


def _reason(choice: _Choice) -> str | None:
    if choice.finish_reason == "stop" and choice.stop_reason is not None:
        return "stop_sequence"
    return _REASONS.get(choice.finish_reason, "unknown") if choice.finish_reason else None


def _read(body: bytes) -> _Completion:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise EngineFailed("The engine's answer cannot be read.") from None


def _object(raw: str) -> Any:
    """The JSON object that a model wrote, or None where it wrote something else."""
    try:
        found = _anything(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, UnicodeEncodeError):
        return None
    return found if type(found) is dict else None
