"""A verdict's sentences. Pure: figures in, plain English out; what they come to is decided in `verdict.py`."""

from __future__ import annotations

import math

from gateway.findings import FeedbackCoverage, Figure, Role, SampleRatio, Status


def amount(figure: Figure, value: float | None) -> str:
    """A mean with its unit: "61.2 %", "812 ms"."""
    if value is None:
        return "unknown"
    if figure.share:
        return f"{_tidy(100 * value, 1)} %"
    return f"{_number(value)} {figure.unit}".rstrip()


def change(figure: Figure, value: float | None) -> str:
    """A difference with its sign and unit: "+6.2 points", "-40 ms"."""
    if value is None:
        return "unknown"
    return f"{_bare(figure, value)} {'points' if figure.share else figure.unit}".rstrip()


def interval(figure: Figure, between: str = "to") -> str:
    """Both ends of the sequence of the difference: "+2.1 to +10.3 points"."""
    if figure.low is None:
        return "unknown"
    return f"{_bare(figure, figure.low)} {between} {change(figure, figure.high)}"


def p_text(p: float) -> str:
    """Never "p = 0.000"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def per_cent(share: float) -> str:
    """Of a level or a share of units."""
    return f"{100 * share:.4g} %"


def count(number: float) -> str:
    """A whole number, with a comma at the thousands; two digits that matter above a hundred."""
    if number > 100:
        step = 10 ** (math.floor(math.log10(number)) - 1)
        number = math.ceil(number / step) * step
    return f"{round(number):,}"


def of_goal(figure: Figure, alpha: float) -> str:
    """One sentence on a primary or secondary metric."""
    if figure.difference is None:
        return f"{figure.metric} of '{figure.variant}': {_nothing(figure)}."
    what = f"{figure.metric} of '{figure.variant}' is {amount(figure, figure.value)} against"
    what = f"{what} {amount(figure, figure.control)}: {change(figure, figure.difference)}"
    if figure.relative is not None:
        what = f"{what}, {_tidy(100 * figure.relative, 1, signed=True)} % of the control's"
    if figure.p is None:
        return f"{what}; too few units yet ({figure.units:,} and {figure.control_units:,})."
    held = f"{per_cent(1 - alpha)} interval {interval(figure)}"
    adjusted = p_text(1.0 if figure.adjusted_p is None else figure.adjusted_p)
    role = "primary, " if figure.role is Role.PRIMARY else ""
    units = f"{figure.units:,} and {figure.control_units:,} units"
    return f"{what} ({role}{held}, adjusted {adjusted}, {units}): {figure.status}."


def of_guardrail(figure: Figure) -> str:
    """One sentence on a guardrail."""
    if figure.difference is None or figure.limit is None:
        return f"Guardrail {figure.metric} of '{figure.variant}': {_nothing(figure)}."
    what = f"Guardrail {figure.metric} of '{figure.variant}': {amount(figure, figure.value)} against"
    what = f"{what} {amount(figure, figure.control)}, {change(figure, figure.difference)}"
    what = f"{what} where {change(figure, figure.limit)} is allowed"
    if not figure.past_burn_in:
        return f"{what}; too few units yet ({figure.units:,} and {figure.control_units:,})."
    status = "not proven either way" if figure.status is Status.UNCLEAR else figure.status
    return f"{what} (between {interval(figure, 'and')}): {status}."


def of_ratio(found: SampleRatio) -> str:
    """Counts of exposed units beside what the weights say."""
    pairs = ", ".join(
        f"'{name}' {units:,} of {found.expected.get(name, 0.0):,.0f}" for name, units in found.exposed.items()
    )
    return f"Units by arm, seen of expected: {pairs} ({p_text(found.p)}, an alarm below 0.001)."


def of_coverage(found: FeedbackCoverage) -> str:
    """Whom each arm has heard from."""
    shares = ", ".join(f"'{name}' {_tidy(100 * share, 1)} %" for name, share in found.shares.items())
    return f"Share of units that have {found.metric}: {shares} ({p_text(found.p)}, an alarm below 0.001)."


def of_rest(units: float | None, per_day: float | None, *, if_what: str = "the difference stays as it is") -> str:
    """How much longer, or that it cannot be said."""
    if units is None:
        return "The present difference would not become conclusive in any number of units that we could wait for."
    days = units / per_day if per_day else math.inf
    if per_day is None or not math.isfinite(days):
        return f"About {count(units)} further units, if {if_what}."
    when = "less than a day" if days < 1 else "about a day" if days < 1.5 else f"{count(days)} days"
    return f"About {count(units)} further units, {when} at today's {count(per_day)} a day, if {if_what}."


def _bare(figure: Figure, value: float) -> str:
    if figure.share:
        return _tidy(100 * value, 1, signed=True)
    text = _number(value)
    return f"+{text}" if value > 0 and text != "0" else text


def _nothing(figure: Figure) -> str:
    return f"nothing to compare yet ({figure.units:,} and {figure.control_units:,} units have it)"


def _number(value: float) -> str:
    """Three digits that matter, none of them in exponents."""
    if abs(value) < 1e-12:  # what is left of a sum of equal numbers
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _tidy(value: float, places: int, *, signed: bool = False) -> str:
    """Small numbers keep two digits, so that a rate of 0.04 % is not 0.0 %."""
    if 0 < abs(value) < 1:
        places = min(6, 1 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed and value else ''},.{places}f}"
