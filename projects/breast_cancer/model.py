"""The classifier: standardised measurements into a logistic regression."""

from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

L1_RATIO = {"l1": 1.0, "l2": 0.0}


def make_model(params: dict[str, Any], seed: int) -> Pipeline:
    """Return an unfitted pipeline; `params` are those of the study's space."""
    regression = LogisticRegression(
        C=params["C"],
        solver=params["solver"],
        l1_ratio=l1_ratio(params),
        max_iter=10_000,
        random_state=seed,
    )
    return make_pipeline(StandardScaler(), regression)


def l1_ratio(params: dict[str, Any]) -> float:
    """Return the share of L1 in the penalty, which is how scikit-learn names penalties since 1.8.

    liblinear knows L1 or L2, saga any mixture, lbfgs L2 alone.
    """
    if "penalty" in params:
        return L1_RATIO[params["penalty"]]
    return float(params.get("l1_ratio", 0.0))
