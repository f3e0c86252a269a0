"""What each row weighs: clip(target share / propensity), normalised to a mean of 1, with a cap for each user.

The weights make rows count as if each variant had answered its target share of the traffic. The cap is by
water-filling: users over it are cut to it, and what is cut goes to the others in proportion, until nobody is over it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from adapters.examples import Example
from trainer.data.sides import prompt_of

NO_SHARE = "from a variant without a target share"
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Method:
    """The rows of one method. `effective` is Kish's sample size, (Σw)²/Σw²; `largest` the largest user's share.

    `different`: the first of each of those that say the same. A run trains on these at most: trainer.data keeps no
    row twice, however many users it comes from.
    `capped`: users cut to the cap. `even`: there are fewer users than would fit under it, so that all weigh the same.
    `unseen`: variants with a target share and no row here.
    """

    rows: list[Example]
    different: Sequence[Example] = ()
    effective: float = 0.0
    users: int = 0
    largest: float = 0.0
    capped: int = 0
    even: bool = False
    unseen: tuple[str, ...] = ()


def weigh(
    rows: Sequence[Example],
    shares: Mapping[str, float],
    *,
    largest_weight: float,
    user_share: float,
    counts: Counter[str],
) -> Method:
    """The rows with their weights, in their order. Rows of a variant whose share is 0 are left out and counted."""
    kept = [row for row in rows if shares.get(row.variant or "", 0.0) > 0]
    counts[NO_SHARE] += len(rows) - len(kept)
    unseen = tuple(sorted({name for name, share in shares.items() if share > 0} - {row.variant for row in kept}))
    if not kept:
        return Method([], unseen=unseen)
    raw = [min(shares[row.variant or ""] / (row.propensity or 1.0), largest_weight) for row in kept]
    of_user: dict[str, float] = defaultdict(float)
    for row, weight in zip(kept, raw, strict=True):
        of_user[_user(row)] += weight
    total = sum(of_user.values())
    wanted = {user: weight / total for user, weight in of_user.items()}
    held, capped = cap(wanted, user_share)
    weights = [
        weight / total * held[_user(row)] / wanted[_user(row)] * len(kept)
        for row, weight in zip(kept, raw, strict=True)
    ]
    weighed = [
        row.model_copy(update={"weight": float(f"{weight:.{_DIGITS}g}")})
        for row, weight in zip(kept, weights, strict=True)
    ]
    return Method(
        rows=weighed,
        different=list({_says(row): row for row in reversed(weighed)}.values())[::-1],
        effective=sum(weights) ** 2 / sum(weight * weight for weight in weights),
        users=len(held),
        largest=max(held.values()),
        capped=capped,
        even=len(held) * user_share < 1,
        unseen=unseen,
    )


def cap(shares: Mapping[str, float], most: float) -> tuple[dict[str, float], int]:
    """Shares (positive, of a sum of 1) such that none is over `most`, and how many were cut to it.

    Where that cannot be, because there are fewer than 1/most of them, all are equal.
    """
    if len(shares) * most <= 1:
        return dict.fromkeys(shares, 1 / len(shares)), sum(share > 1 / len(shares) for share in shares.values())
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    from_here = list(accumulate(share for _, share in reversed(ordered)))[::-1]  # of each place, its sum to the end
    cut = 0
    # Whoever is largest is cut first; the others grow by what is free, which may lift the next one over the cap.
    while ordered[cut][1] * (1 - cut * most) > most * from_here[cut]:
        cut += 1
    grown = (1 - cut * most) / from_here[cut]
    held = {user: most if place < cut else share * grown for place, (user, share) in enumerate(ordered)}
    return held, cut


def _says(row: Example) -> tuple[str, str, str | None, bool]:
    return (prompt_of(row), row.completion, row.rejected, row.label is False)


def _user(row: Example) -> str:
    return row.unit if row.unit is not None else f"inference {row.inference_id}"
