"""An engine plugin as it was written for the first release: the template of that release, unchanged below this line."""

from __future__ import annotations

import random
from typing import ClassVar

from mltune.engines import ENUMERATED, AskTellEngine, Method, Option, Search
from mltune.space import Params, Value
from mltune.trial import FrozenTrial, TrialState


class TemplateEngine(AskTellEngine):
    """Offers ``nearby``, beside grid, manual, qmc and random, which mltune enumerates for every engine."""

    algorithms: ClassVar = {
        **ENUMERATED,
        "nearby": Method(options={"n_startup_trials": Option(int, 10, low=1), "fresh": Option(float, 0.5, low=0)}),
    }

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self._options = self.algorithms[search.algorithm.name].complete(search.algorithm.options)
        self._best: tuple[float, Params] | None = None

    def ask(self, number: int, seed: int) -> dict[str, Value]:
        """A random point; after the start-up trials each value is the best point's own, unless drawn afresh."""
        rng, space = random.Random(seed), self.search.space
        best = self._best[1] if self._best and number >= self._options["n_startup_trials"] else {}
        point: dict[str, Value] = {}
        for name, parameter in space.items():
            if space.active(name, point):
                fresh = rng.random() < self._options["fresh"] or name not in best
                point[name] = parameter.at(rng.random()) if fresh else best[name]
        return point

    def tell(self, trial: FrozenTrial) -> None:
        """Remember the best trial; failed, pruned and interrupted ones teach nothing here."""
        best = self._best[0] if self._best else None
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            won = self.search.direction.better(trial.value, best)
            self._best = (trial.value, trial.params) if won else self._best
