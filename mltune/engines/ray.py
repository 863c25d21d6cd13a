"""Ray: the Optuna engine's proposals and schedulers, so that both engines mean the same, on executor ray."""

from __future__ import annotations

from typing import ClassVar

from mltune.engines.optuna import OptunaEngine


class RayEngine(OptunaEngine):
    """The Optuna engine's proposals, for trials that Ray runs unless the study names another executor."""

    packages: ClassVar[tuple[str, ...]] = ("ray", "optuna")
    executor: ClassVar[str] = "ray"
