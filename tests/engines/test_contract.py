"""Every engine of mltune's own keeps the laws."""

from __future__ import annotations

from mltune.testing import EngineContract

_FEW_MODELS = {"gp": {"n_startup_trials": 12}}  # fitting one takes a tenth of a second


class TestOptuna(EngineContract):
    engine = "optuna"
    options = _FEW_MODELS


class TestRay(EngineContract):
    engine = "ray"
    options = _FEW_MODELS
