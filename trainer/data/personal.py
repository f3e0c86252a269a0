"""Personal data in texts, found by plain patterns that check what can be checked. It knows no files.

Few false alarms matter more than finding everything: a card number must pass Luhn's check, an IBAN its own, an address
must be a public one, and numbers that any order number could be are left alone. Names and postal addresses need a model
of the language; they are not found here, nor by presidio's patterns.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from adapters.examples import Example

_AROUND = 24
_NO_TEXT = frozenset({"role", "type", "id", "tool_call_id"})


class Span(NamedTuple):
    """`kind` is what its placeholder says: <EMAIL>, <PHONE>, <IBAN>, <CARD>, <IP>, <SECRET>, <NATIONAL_ID>."""

    start: int
    end: int
    kind: str


class Found(NamedTuple):
    """`around` is the masked text about the place; what stood there is not in it."""

    kind: str
    around: str


class Finder(Protocol):
    def find(self, text: str) -> list[Span]: ...


class Patterns:
    """The plain patterns. A text without "@", a long number or a secret's beginning costs a microsecond or two."""

    def find(self, text: str) -> list[Span]:
        """Spans in order, none over another; where two patterns claim a place the one listed first has it."""
        if not _worth(text):
            return []
        found: list[Span] = []
        for rule in _RULES:
            for span in rule.spans(text):
                if all(span.end <= other.start or span.start >= other.end for other in found):
                    found.append(span)
        return sorted(found)


def masked(text: str, spans: list[Span]) -> str:
    """The text with a placeholder for each span."""
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], f"<{span.kind}>"]
        at = span.end
    return "".join([*pieces, text[at:]])


def cleaned(example: Example, finder: Finder, *, mask: bool) -> tuple[Example, list[Found]]:
    """The example without the personal data in it (as it was, unless `mask`), and what was found."""
    found: list[Found] = []

    def look(text: str) -> str:
        spans = finder.find(text)
        if not spans:
            return text
        clean = masked(text, spans)
        for span in spans:
            place = len(masked(text[: span.start], [s for s in spans if s.end <= span.start]))
            found.append(Found(span.kind, clean[max(place - _AROUND, 0) : place + len(span.kind) + 2 + _AROUND]))
        return clean if mask else text

    texts = {"completion": look(example.completion)}
    if example.rejected is not None:
        texts["rejected"] = look(example.rejected)
    if example.unit is not None and finder.find(example.unit):
        found.append(Found("USER", "the unit itself"))
        if mask:
            texts["unit"] = hashlib.sha256(example.unit.encode()).hexdigest()[:32]
    messages = [_walked(message, look) for message in example.messages]
    return (example.model_copy(update={**texts, "messages": messages}) if found and mask else example), found


def _walked(value: Any, look: Callable[[str], str], key: str = "") -> Any:
    """A message with every text of it looked at; names, roles and data in an URL are none."""
    if isinstance(value, str):
        return value if key in _NO_TEXT or value.startswith("data:") else look(value)
    if isinstance(value, dict):
        return {name: _walked(inner, look, name) for name, inner in value.items()}
    return [_walked(inner, look, key) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Rule:
    """`length` says how much of a match (of its group, if it has one) is what was sought: 0 if nothing."""

    kind: str
    pattern: re.Pattern[str]
    length: Callable[[str], int] = len

    def spans(self, text: str) -> Iterator[Span]:
        for match in self.pattern.finditer(text):
            start, end = match.span(match.lastindex or 0)
            length = self.length(text[start:end])
            if length:
                yield Span(start, start + length, self.kind)


_CARDS = re.compile(r"4(?:\d{12}|\d{15}|\d{18})|(?:5\d|2[2-7])\d{14}|3[47]\d{13}|3[068]\d{12}|6(?:\d{15}|\d{18})")


def _card(match: str) -> int:
    number = match.replace(" ", "").replace("-", "")
    if _CARDS.fullmatch(number) is None or len(set(number)) == 1:
        return 0
    digits = [int(digit) for digit in reversed(number)]
    check = sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return len(match) if check % 10 == 0 else 0


_IBAN_LENGTHS = dict(
    re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23"
        "GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21MC27MD24ME22MK19MR27MT31MU30NL18"
        "NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20",
    )
)


def _iban(match: str) -> int:
    """The match may go on into the next words: the country says how long an IBAN is."""
    wanted = int(_IBAN_LENGTHS.get(match[:2].upper(), 0))
    end = taken = 0
    while taken < wanted and end < len(match):
        taken += match[end].isalnum()
        end += 1
    code = re.sub(r"[^0-9A-Z]", "", match[:end].upper())
    if not wanted or len(code) != wanted or (end < len(match) and match[end].isalnum()):
        return 0
    return end if int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1 else 0


def _address(match: str) -> int:
    try:
        return len(match) if ipaddress.ip_address(match).is_global else 0
    except ValueError:
        return 0


def _phone(match: str) -> int:
    return len(match) if 8 <= sum(sign.isdigit() for sign in match) <= 15 else 0


def _dni(match: str) -> int:
    """Spain's DNI and NIE."""
    number = match[:-1].replace("-", "").upper().translate(str.maketrans("XYZ", "012"))
    return len(match) if "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == match[-1].upper() else 0


def _nir(match: str) -> int:
    """France's number of the Sécurité sociale."""
    number = re.sub(r"\s", "", match).upper().replace("2A", "19").replace("2B", "18")
    return len(match) if 97 - int(number[:13]) % 97 == int(number[13:]) else 0


def _cpf(match: str) -> int:
    """Brazil's CPF."""
    digits = [int(sign) for sign in match if sign.isdigit()]
    for length in (9, 10):
        check = sum(digit * weight for digit, weight in zip(digits, range(length + 1, 1, -1), strict=False)) * 10 % 11
        if check % 10 != digits[length]:
            return 0
    return len(match) if len(set(digits)) > 1 else 0


_ODD_LETTERS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_ODD = {chr(65 + n): value for n, value in enumerate(_ODD_LETTERS)} | {str(n): _ODD_LETTERS[n] for n in range(10)}


def _codice_fiscale(match: str) -> int:
    """Italy's."""
    code = match.upper()
    total = sum(_ODD[sign] for sign in code[:15:2])
    total += sum(int(sign) if sign.isdigit() else ord(sign) - 65 for sign in code[1:15:2])
    return len(match) if chr(65 + total % 26) == code[15] else 0


def _mixed(match: str) -> int:
    """What follows `password=`: a secret has letters and digits, a placeholder or a word has not."""
    return len(match) if any(s.isdigit() for s in match) and any(s.isalpha() for s in match) else 0


_HINTS = ["@", "sk-", "sk_", "rk_", "gh", "glpat", "xox", "hf_", "aiza", "eyj", "akia", "asia", "-----b"]
_HINTS += ["passw", "secret", "token", "api_key", "api-key", "apikey"]


def _worth(text: str) -> bool:
    """Whether a text may hold anything at all: every rule below needs four digits or one of the hints."""
    if sum(map(text.count, "0123456789")) >= 4:
        return True
    lowered = text.lower()
    for hint in _HINTS:  # any() takes four times as long, and every text of every row comes by here
        if hint in lowered:
            return True
    return text.count(":") >= 3


_RULES = (
    _Rule(
        "SECRET",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
            r"|\bsk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}|\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"
            r"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}|\bxox[abeoprs]-[\w-]{10,}"
            r"|\bhf_[A-Za-z0-9]{30,}|\b(?:AKIA|ASIA)(?=[A-Z]*\d)[A-Z0-9]{16}\b|\bAIza[\w-]{35}"
            r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"
        ),
    ),
    _Rule(
        "SECRET",
        re.compile(r"(?i)(?:api[_-]?key|secret|token|password|passwd)[\"']?\s*[=:]\s*[\"']?([\w+/.~-]{12,})"),
        _mixed,
    ),
    _Rule("SECRET", re.compile(r"://[^\s:/@]{1,64}:([^\s:/@]{3,128})@")),
    _Rule("EMAIL", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")),
    _Rule("IBAN", re.compile(r"(?i)\b[a-z]{2}\d{2}(?:[ -]?[a-z0-9]){11,30}"), _iban),
    _Rule("NATIONAL_ID", re.compile(r"\b[12]\s?\d\d\s?[0-9]\d\s?\d[\dABab]\s?\d{3}\s?\d{3}\s?\d\d\b"), _nir),
    _Rule("CARD", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])"), _card),
    _Rule("NATIONAL_ID", re.compile(r"(?i)\b[a-z]{6}\d\d[a-ehlmprst]\d\d[a-z]\d{3}[a-z]\b"), _codice_fiscale),
    _Rule("NATIONAL_ID", re.compile(r"\b(?:\d{8}|[XYZxyz]-?\d{7})-?[A-Za-z]\b"), _dni),
    _Rule("NATIONAL_ID", re.compile(r"\b\d{3}\.\d{3}\.\d{3}-\d\d\b"), _cpf),
    _Rule("NATIONAL_ID", re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])")),  # the US's SSN
    _Rule("IP", re.compile(r"(?<![\w.:-])(?<![Vv]ersion )\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)"), _address),
    _Rule(
        "IP", re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])"), _address
    ),
    _Rule(
        "PHONE",
        re.compile(r"(?<![\w+])(?<!\d )(?:\+|00(?=[1-9]))\d{1,3}(?:[ ./-]{0,2}\(?\d\)?){7,13}(?![\w-])"),
        _phone,
    ),
    _Rule(
        "PHONE", re.compile(r"(?<![\w+.-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![\w-])")
    ),
)
