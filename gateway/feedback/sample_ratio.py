"""Did the arms get the units that their weights say? A test for who looks all the time. Pure, exact, not asymptotic.

Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS 2022): the counts' likelihood under a
Dirichlet prior around the weights, over that under the weights themselves. Whatever the number of looks, it exceeds
1/alpha with chance alpha at most where the weights are right. A change of weights begins a new factor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

ALARM = 0.001
"""Below this p-value the figures are not to be trusted: something loses units of one arm, or assigns them wrongly."""

CONCENTRATION = 3_000.0
"""How near to the weights the alternatives lie: one in a hundred of a half, which is a loss of 4 % in one of two arms.
Smaller and larger ones are found hardly later than by a test made for them; measured in docs/statistics.md."""


def log_evidence(counts: Any, weights: Any, concentration: float = CONCENTRATION) -> Any:
    """The log of the e-value of one epoch. `counts` has shape (..., arms), `weights` (> 0, relative) shape (arms,)."""
    from scipy.special import gammaln  # 0.1 s of import, which a gateway without experiments need not spend

    seen, shares = np.asarray(counts, dtype=float), np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    prior = shares * concentration
    mixed = gammaln(concentration) - gammaln(concentration + seen.sum(axis=-1))
    return mixed + (gammaln(prior + seen) - gammaln(prior) - seen * np.log(shares)).sum(axis=-1)


def p_value(epochs: Iterable[tuple[Any, Any]]) -> float:
    """Always-valid, over all epochs: pairs of counts and weights. Arms of weight 0 can have no units and are left out.

    The epochs' e-values multiply, as each begins anew after the one before.
    """
    total = 0.0
    for counts, weights in epochs:
        shares = np.asarray(weights, dtype=float)
        if (shares > 0).sum() > 1:
            total += float(log_evidence(np.asarray(counts, dtype=float)[shares > 0], shares[shares > 0]))
    return float(min(1.0, np.exp(-total))) if total > 0 else 1.0
