"""What waits to be written to one run: gathered while the store is busy, and written in as few calls as it takes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mltune.retry import is_transient
from mltune.tracking.tags import to_tags

_METRICS, _PARAMS = 800, 100  # in one call; MLflow takes 1,000 metrics, 100 params, 100 tags, and 1,000 in all


@dataclass
class _Batch:
    """What one call writes."""

    metrics: Sequence[Metric] = ()
    params: Sequence[Param] = ()
    tags: dict[str, str] = field(default_factory=dict)
    last: bool = False  # of what was there when it was taken


class Entries:
    """Params, metrics and tags of one run, added by one thread and written by another.

    MLflow writes a batch as params, metrics, tags; tags go with the last batch. So whoever reads a tag finds all that
    was added before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._params: list[Param] = []
        self._tags: dict[str, str] = {}
        self._taken: _Batch | None = None

    def add(
        self,
        *,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Have something written by the next :meth:`write`; of a tag only the last value."""
        with self._lock:
            self._metrics += metrics
            self._params += params
            self._tags |= tags or {}

    def write(self, client: MlflowClient, run_id: str) -> None:
        """Write all that was added, but not what is added meanwhile: no call if that is nothing.

        What fails is written again by the next one.
        """
        while (batch := self._take()) is not None:
            try:
                client.log_batch(run_id, metrics=batch.metrics, params=batch.params, tags=to_tags(batch.tags))
            except MlflowException as error:
                if is_transient(error) or not _leave_out_known(batch, client, run_id):
                    raise
            else:
                self._taken = None
                if batch.last:
                    return

    def _take(self) -> _Batch | None:
        """The batch whose writing failed, or the next one."""
        with self._lock:
            if self._taken is None and (self._metrics or self._params or self._tags):
                self._taken = _Batch(self._metrics[:_METRICS], self._params[:_PARAMS])
                del self._metrics[:_METRICS], self._params[:_PARAMS]
                if not self._metrics and not self._params:
                    self._taken.tags, self._tags, self._taken.last = self._tags, {}, True
            return self._taken


def _leave_out_known(batch: _Batch, client: MlflowClient, run_id: str) -> bool:
    """Leave out params that the run has: MLflow never changes one, and user code may have logged it in its own words.

    Returns:
        Whether there were any.
    """
    known = client.get_run(run_id).data.params if batch.params else {}
    left = [param for param in batch.params if param.key not in known]
    found = len(left) < len(batch.params)
    batch.params = left
    return found
