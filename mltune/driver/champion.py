"""The life of a champion: its model is registered, verified in a fresh process, and given the alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities.model_registry import ModelVersion

from mltune.execution.verification import verify_model
from mltune.tracking import outputs, registry

if TYPE_CHECKING:
    from mltune.driver.session import Session
    from mltune.tracking.registration import Registration
    from mltune.trial import FrozenTrial


def register(session: Session, name: str, best: FrozenTrial) -> Registration:
    """Register the best model, and promote it once a fresh process could use it.

    Args:
        session: The session of the study.
        name: The registered model.
        best: The best trial.

    Raises:
        RequestError: The trial logged no model.
        MlflowException: The registry refused.
    """
    version = session.do(lambda: _add_version(session, name, best))
    environment = {**session.store.environment, **session.settings}
    uri = f"models:/{name}/{version.version}"
    fault = verify_model(session.executor.fresh_process(), uri, environment, session.check)
    return session.do(lambda: registry.promote(session.store.client, version, fault))


def _add_version(session: Session, name: str, best: FrozenTrial) -> ModelVersion:
    client, config = session.store.client, session.request.config
    model_id = outputs.model_of(client, best)
    return registry.add_version(client, name, best, model_id, study=session.run_id, goal=config.goal)
