"""Random search that stays near its best point: an engine plugin in forty lines, to be copied."""

from __future__ import annotations

import random
from typing import ClassVar

from mltune.engines import ENUMERATED, AlgorithmInfo, Engine, Option, SearchProblem
from mltune.space import Value
from mltune.trial import FrozenTrial


class TemplateEngine(Engine):
    """Offers ``nearby``, beside grid, manual, qmc and random, which mltune enumerates for every engine."""

    algorithms: ClassVar = {
        **ENUMERATED,
        "nearby": AlgorithmInfo(
            options={"n_startup_trials": Option(int, 10, low=1), "fresh": Option(float, 0.5, low=0)}
        ),
    }

    def __init__(self, search: SearchProblem) -> None:
        super().__init__(search)
        self._options = self.algorithms[search.algorithm.name].complete(search.algorithm.options)
        self._best: FrozenTrial | None = None

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        """A random point; after the start-up trials each value is the best point's own, unless drawn afresh."""
        rng, space = random.Random(seed), self.search.space
        best = self._best.params if self._best and number >= self._options["n_startup_trials"] else {}
        point: dict[str, Value] = {}
        for name, parameter in space.items():
            if space.active(name, point):
                fresh = rng.random() < self._options["fresh"] or name not in best
                point[name] = parameter.from_unit(rng.random()) if fresh else best[name]
        return point

    def tell(self, trial: FrozenTrial) -> None:
        """Remember the best trial; failed, pruned and interrupted ones teach nothing here."""
        self._best = self.search.goal.best([trial, *([self._best] if self._best else [])])
