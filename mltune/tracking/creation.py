"""Create each run once, even if the store's response to an earlier request was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mltune._util.redaction import redact
from mltune._util.scoped import not_importable
from mltune.tracking.open_trial import now
from mltune.tracking.other_runs import discard, duplicates
from mltune.tracking.tags import prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow import MlflowClient


class RunCreator:
    """Creates runs, which their tag ``mltune.uid`` tells apart.

    Args:
        client: A client of the tracking store.
        experiment_id: The experiment of the runs.

    Attributes:
        run_ids: The ids of the created runs by uid.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._context = _context_tags()
        self._born: dict[str, int] = {}  # uid to the run's creation time
        self._made_twice: set[str] = set()  # uids whose run may have duplicates
        self.run_ids: dict[str, str] = {}

    def creation(self, name: str, tags: Mapping[str, str], parent: str | None) -> Callable[[], str]:
        """Return a call that creates a run, or finds it if an earlier call created it, and returns the run's id.

        Args:
            name: The run's name.
            tags: Its tags, ``uid`` among them, without the prefix ``mltune.``.
            parent: The run in which it is nested, or None.
        """
        uid, tried = tags["uid"], False

        def create() -> str:
            nonlocal tried
            if tried and uid not in self.run_ids:
                self._made_twice.add(uid)
                if found := duplicates(self._client, self._experiment_id, uid):
                    self.run_ids[uid] = found[0]
            tried = True
            if uid not in self.run_ids:
                parent_tag = {MLFLOW_PARENT_RUN_ID: parent} if parent is not None else {}
                run = self._client.create_run(
                    self._experiment_id, tags=self._context | prefixed(tags) | parent_tag, run_name=name
                )
                self._born[uid] = run.info.start_time
                self.run_ids[uid] = str(run.info.run_id)
            return self.run_ids[uid]

        return create

    def take_creation_time(self, uid: str) -> int:
        """Return when a run was created, in milliseconds since 1970, or the current time if that is not known.

        Can be called once for each run, because the time is forgotten then.
        """
        return self._born.pop(uid, now())

    def delete(self, uid: str) -> None:
        """Delete the run if it was created."""
        if uid in self.run_ids:
            discard(self._client, self.run_ids[uid])

    def delete_duplicates(self) -> None:
        """Delete duplicate runs: a request that seemed lost may have created a second run later."""
        for uid in self._made_twice:
            for run_id in duplicates(self._client, self._experiment_id, uid):
                if run_id != self.run_ids.get(uid):
                    discard(self._client, run_id)


def _context_tags() -> dict[str, str]:
    """Return the tags by which MLflow says where a run comes from: its user, source file, commit, notebook.

    Imports of IPython are blocked meanwhile: MLflow would import it, which takes 0.2 s, only to see that this is no
    notebook; in a notebook it is imported already.
    """
    with not_importable("IPython"):
        tags = resolve_tags()
    return {name: redact(value) for name, value in tags.items()}
