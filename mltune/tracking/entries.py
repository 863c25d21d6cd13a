"""Buffer the params, metrics and tags of one run while the store is busy; write them in as few calls as possible."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mltune.retry import is_transient
from mltune.tracking.tags import to_tags

_METRICS, _PARAMS = 800, 100  # per call; MLflow accepts 1,000 metrics, 100 params, 100 tags, and 1,000 in all


@dataclass
class _Batch:
    """The entries that one call writes."""

    metrics: Sequence[Metric] = ()
    params: Sequence[Param] = ()
    tags: dict[str, str] = field(default_factory=dict)
    last: bool = False  # whether it emptied the buffer


class Entries:
    """Buffered params, metrics and tags of one run; one thread adds them, another writes them.

    MLflow writes a batch in the order params, metrics, tags, and tags are in the last batch. So a reader that finds a
    tag also finds everything that was added before it.
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
        """Add entries for the next :meth:`write`, which writes only the last value of a tag."""
        with self._lock:
            self._metrics += metrics
            self._params += params
            self._tags |= tags or {}

    def write(self, client: MlflowClient, run_id: str) -> None:
        """Write the buffered entries; make no call if there are none.

        Entries added during the call may be left to the next one. If a batch fails, the next call repeats it.
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
        """Return the batch that failed, else the next one, or None if the buffer is empty."""
        with self._lock:
            if self._taken is None and (self._metrics or self._params or self._tags):
                self._taken = _Batch(self._metrics[:_METRICS], self._params[:_PARAMS])
                del self._metrics[:_METRICS], self._params[:_PARAMS]
                if not self._metrics and not self._params:
                    self._taken.tags, self._tags, self._taken.last = self._tags, {}, True
            return self._taken


def _leave_out_known(batch: _Batch, client: MlflowClient, run_id: str) -> bool:
    """Remove from the batch those params that the run already has.

    MLflow refuses another value for a param, and user code may have logged the same value in a different form.

    Returns:
        Whether any were removed.
    """
    logged = client.get_run(run_id).data.params if batch.params else {}
    remaining = [param for param in batch.params if param.key not in logged]
    any_removed = len(remaining) < len(batch.params)
    batch.params = remaining
    return any_removed
