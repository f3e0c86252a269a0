"""Figures and a policy in, a verdict and its sentence out. Pure: the same evidence is always judged the same.

What is not known refuses: too few rows, a figure that these rows do not have, a parity that was not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainer.gate import LEAST_UNITS
from trainer.gate.statistics import Difference, SignTest, rows_needed
from trainer.settings.gate import Policy

WORDS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "json_valid": "valid JSON",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
    "rouge_l": "ROUGE-L",
    "thumbs_auc": "AUC of thumbs",
    "token_f1": "token F1",
}
"""How figures are called in sentences, where it is not their name with spaces."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two versions. `difference` counts upwards: above 0 is better, also for a loss."""

    figure: str
    candidate: float
    other: float
    difference: Difference
    test: SignTest | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """How the answers look: mean characters, shares of refusals and of repetitive answers."""

    length: float
    refusals: float
    repetition: float


@dataclass(frozen=True, slots=True)
class Parity:
    """PEFT beside the engine. `nats`: mean absolute difference of a token's log-probability; `diverged` counts the
    rows whose greedy answers part where no near tie explains it."""

    rows: int
    nats: float
    tolerance: float
    diverged: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is decided by. `main` is None where the `rows` held-out rows do not have the policy's figure."""

    against: str
    rows: int
    main: Compared | None
    regression: Compared | None
    drift: Drift
    drift_other: Drift
    reference_length: float
    parity: Parity | None


@dataclass(frozen=True, slots=True)
class Verdict:
    verdict: Literal["accepted", "refused"]
    reason: str


def judge(evidence: Evidence, policy: Policy) -> Verdict:
    """Accepted if the candidate is better and nothing else is worse; the reason names every number that mattered."""
    shown = "" if evidence.main is None else sentence(evidence.main, evidence.against, policy.confidence)
    against = list(_objections(evidence, policy))
    if against:
        return Verdict("refused", f"{shown}: refused, {'; '.join(against)}" if shown else f"refused: {against[0]}")
    return Verdict("accepted", f"{shown}: accepted")


def sentence(compared: Compared, against: str, confidence: float) -> str:
    """`exact match 0.81 against 0.74 of acme/support@1 (+0.07, 95 % from +0.02)`."""
    percent = f"{confidence * 100:.3g} %"
    difference = f"{signed(compared.difference.value)}, {percent} from {signed(compared.difference.low)}"
    values = f"{number(compared.candidate)} against {number(compared.other)} of {against}"
    return f"{word(compared.figure)} {values} ({difference})"


def _objections(evidence: Evidence, policy: Policy) -> Iterator[str]:
    if not evidence.rows:
        yield f"there are no held-out rows; hold out at least {LEAST_UNITS}"
        return
    if evidence.main is None:
        yield f"the held-out rows have no {word(policy.figure)}; choose another gate.policy.figure, or add such rows"
        return
    yield from _not_better(evidence.main, policy)
    yield from _drifted(evidence, policy)
    lost = evidence.regression
    if lost is not None and policy.may_lose is not None and -lost.difference.value > policy.may_lose:
        yield (
            f"it loses {number(-lost.difference.value)} of the base's {number(lost.other)} {word(lost.figure)} "
            f"on the regression set, where {policy.may_lose:g} may be lost"
        )
    parity = evidence.parity
    if parity is not None and parity.nats > parity.tolerance:
        yield (
            f"what was trained is not what is served: PEFT and the engine differ by {parity.nats:.3f} nats a token, "
            f"where {parity.tolerance:g} are allowed"
        )
    if parity is not None and parity.diverged:
        yield f"{parity.diverged} of {parity.rows} greedy answers of PEFT and of the engine part without a near tie"


def _not_better(main: Compared, policy: Policy) -> Iterator[str]:
    found = main.difference
    if found.units < LEAST_UNITS:
        users = "rows" if found.units == found.rows else "users"
        yield f"{found.units} {users} tell too little: hold out {LEAST_UNITS - found.units} more"
    elif found.value <= policy.by:
        yield "it is not better" if policy.by == 0 else f"it is not better by more than {policy.by:g}"
    elif found.low <= policy.by or not _test_agrees(main, policy):
        test = None if policy.by < 0 else main.test
        if test is not None and not _test_agrees(main, policy):
            why = f"{test.wins} better and {test.losses} worse may be chance (McNemar's p {test.p:.2f})"
        else:
            why = "that may be chance" if policy.by == 0 else f"more than {signed(policy.by)} is not shown"
        needed = rows_needed(found, policy.by, confidence=policy.confidence, test=test)
        yield why + ("" if needed is None else f"; about {needed} rows would show it, {needed - found.rows} more")


def _test_agrees(main: Compared, policy: Policy) -> bool:
    """McNemar's test knows only one question: whether there is any difference."""
    return main.test is None or policy.by < 0 or main.test.p <= 1 - policy.confidence


def _drifted(evidence: Evidence, policy: Policy) -> Iterator[str]:
    now, before = evidence.drift, evidence.drift_other
    usual = max(before.length, evidence.reference_length, 1.0)
    if policy.longest is not None and now.length > policy.longest * usual:
        yield (
            f"its answers have {now.length:.0f} characters, {now.length / usual:.1f} times the usual {usual:.0f}, "
            f"where {policy.longest:g} times are allowed"
        )
    limits = (
        ("refuses", policy.refusals, now.refusals, before.refusals),
        ("repeats itself in", policy.repetition, now.repetition, before.repetition),
    )
    for what, limit, share, usual in limits:
        if limit is not None and share - usual > limit:
            yield f"it {what} {share:.0%} of the answers after {usual:.0%}, where {limit:.0%} more are allowed"


def word(figure: str) -> str:
    return WORDS.get(figure, figure.replace("_", " "))


def number(value: float) -> str:
    """Two digits after the point, more where that would be nothing."""
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def signed(value: float) -> str:
    shown = number(value)
    return shown if shown.startswith("-") or shown == "nan" else f"+{shown}"
