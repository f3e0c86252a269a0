"""What users said of live answers, as rows to train on: `compile`. It knows no gateway, no clock and no model."""

from trainer.feedback.compiler import Balance, Compiled, compile  # noqa: A004  # read as feedback.compile
from trainer.feedback.weights import Method

__all__ = ["Balance", "Compiled", "Method", "compile"]
