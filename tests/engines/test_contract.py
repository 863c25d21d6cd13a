"""Every engine of mltune's own keeps the laws, and a plugin of the first release."""

from __future__ import annotations

from typing import ClassVar

from mltune.engines.optuna import OptunaEngine
from mltune.engines.ray import RayEngine
from mltune.testing import EngineContract
from tests.engines import first_release_plugin


class TestOptuna(EngineContract):
    engine = "optuna"
    options: ClassVar[dict[str, dict[str, int]]] = {"gp": {"n_startup_trials": 12}}  # a fit takes a tenth of a second


class TestFirstReleasePlugin(EngineContract):
    """A plugin that was written for the first release keeps all laws of today."""

    engine_class = first_release_plugin.TemplateEngine


def test_engine_ray_differs_from_optuna_by_its_executor_only() -> None:
    """So it keeps the laws, which say nothing of executors."""

    class Same(OptunaEngine):
        """Has what Python puts into every class."""

        executor: ClassVar[str] = "ray"

    assert RayEngine.__bases__ == (OptunaEngine,)
    assert vars(RayEngine).keys() - vars(Same).keys() == {"packages"}
