"""Engine ray: the proposals and schedulers of engine optuna, so that both behave the same, run by executor ray."""

from __future__ import annotations

from typing import ClassVar

from mltune.engines.optuna import OptunaEngine


class RayEngine(OptunaEngine):
    """Engine optuna, for trials that Ray runs unless the study names another executor."""

    packages: ClassVar[tuple[str, ...]] = ("ray", "optuna")
    executor: ClassVar[str] = "ray"
