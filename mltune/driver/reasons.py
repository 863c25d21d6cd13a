"""Why a study ended early or failed, in one sentence."""

from __future__ import annotations

from mltune._util.redaction import redact
from mltune._util.signals import Stop
from mltune.driver.loop import StudyDriver
from mltune.errors import StudyFailedError
from mltune.execution import ExecutorLostError
from mltune.retry import StoreError
from mltune.trial import TrialState


def meant(error: BaseException, signum: int | None) -> BaseException:
    """What ended a study: where a signal came, it came to the executor's processes, too."""
    return Stop(signum) if isinstance(error, ExecutorLostError) and signum is not None else error


def why_ended(error: BaseException) -> str | None:
    """Why a study ended early, None where a signal did it."""
    if isinstance(error, Stop):
        return None
    if isinstance(error, (ExecutorLostError, StudyFailedError, StoreError)):
        return str(error)
    return redact(f"{type(error).__name__}: {error}")


def why_failed(driver: StudyDriver) -> str:
    """Why a study came to nothing."""
    if driver.gave_up and driver.best is not None:
        return f"the first trials since the study was resumed all failed; the last one: {driver.last_error}"
    if not driver.trials:
        return "no trial was started before the timeout"
    failed = sum(trial.state is TrialState.FAILED for trial in driver.trials)
    if failed == 0 and any(trial.state is TrialState.INTERRUPTED for trial in driver.trials):
        return f"none of {len(driver.trials)} trials completed before the timeout and its grace: raise them"
    if failed == 0:
        return f"none of {len(driver.trials)} trials completed: the scheduler stopped all of them"
    first = "the first " if driver.gave_up else ""
    last = f"; the last one: {driver.last_error}" if driver.last_error else ""
    return f"{first}{failed} of {len(driver.trials)} trials failed and none completed{last}"
