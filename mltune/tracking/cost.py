"""The cost of tracking a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackingCost:
    """Cost of tracking a study.

    Attributes:
        ms_per_trial: Milliseconds per trial that driver and worker spent on tracking in the study's last session,
            models included; most of this time overlaps with training.
        size: Bytes of all uploaded files, which are mostly models.
    """

    ms_per_trial: float = 0.0
    size: int = 0

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> TrackingCost:
        """Return the cost that the parent run's tags record."""
        return cls(float(tags.get("tracking_ms_per_trial", 0.0)), int(tags.get("tracking_bytes", 0)))

    def to_tags(self) -> dict[str, str]:
        """Return the parent run's tags that record the cost."""
        return {"tracking_ms_per_trial": f"{self.ms_per_trial:.1f}", "tracking_bytes": str(self.size)}

    def __str__(self) -> str:
        return f"tracking took {self.ms_per_trial:.0f} ms a trial and {self.size / 1e6:.1f} MB of files"
