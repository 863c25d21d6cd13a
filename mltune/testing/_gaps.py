"""What the contracts of engines and executors have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest


class Gaps:
    """A contract with declared gaps: a law that is named in ``gaps`` must fail."""

    gaps: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _declared_gaps(self, request: pytest.FixtureRequest) -> None:
        node: pytest.Function = request.node
        for law in (node.name, node.originalname):
            if law in self.gaps:
                request.applymarker(pytest.mark.xfail(reason=self.gaps[law], strict=True))
