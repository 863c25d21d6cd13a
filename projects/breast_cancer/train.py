"""The objective: cross-validate one logistic regression, then fit it on every row."""

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import Pipeline

import mltune
from model import make_model

FOLDS = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)  # the same in every trial
SCORERS = {"cv_log_loss": "neg_log_loss", "cv_accuracy": "accuracy", "cv_roc_auc": "roc_auc"}


def train(trial: mltune.Trial) -> dict[str, float]:
    """Measure on five folds, log the model fitted on all of them."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_model(trial.params, trial.seed)
    metrics = cross_validated(model, X, y)
    trial.log_model(model.fit(X, y), input_example=X[:5])
    return metrics


def cross_validated(model: Pipeline, X: pd.DataFrame, y: pd.Series) -> dict[str, float]:
    """Return mean and standard deviation over the folds of each metric."""
    folds = cross_validate(model, X, y, cv=FOLDS, scoring=SCORERS, error_score="raise")
    metrics: dict[str, float] = {}
    for name in SCORERS:
        values = abs(folds[f"test_{name}"])  # scikit-learn negates the losses
        metrics |= {name: float(values.mean()), f"{name}_std": float(values.std())}
    return metrics
