"""What keeping a study's record takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackingCost:
    """What keeping the record took.

    Attributes:
        ms_per_trial: Milliseconds that went into the record of a trial, by driver and worker, models included; most of
            them while trials train. In the study's last session.
        size: Bytes of all files that were uploaded, models most of all.
    """

    ms_per_trial: float = 0.0
    size: int = 0

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> TrackingCost:
        """What the parent run says."""
        return cls(float(tags.get("tracking_ms_per_trial", 0.0)), int(tags.get("tracking_bytes", 0)))

    def to_tags(self) -> dict[str, str]:
        """What the parent run is to say."""
        return {"tracking_ms_per_trial": f"{self.ms_per_trial:.1f}", "tracking_bytes": str(self.size)}

    def __str__(self) -> str:
        return f"tracking took {self.ms_per_trial:.0f} ms a trial and {self.size / 1e6:.1f} MB of files"
