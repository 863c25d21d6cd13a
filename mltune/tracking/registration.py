"""What a study's registration of its best model came to."""

from __future__ import annotations

from dataclasses import dataclass

ALIAS = "champion"


@dataclass(frozen=True)
class Registration:
    """A registered model version.

    Attributes:
        champion: The version that keeps the alias because its recorded value is better, and that value.
        fault: Why the version cannot be used and so does not get the alias.
    """

    name: str
    version: str
    champion: tuple[str, float] | None = None
    fault: str | None = None

    @property
    def kept(self) -> tuple[str, float] | None:
        """The first release's name of :attr:`champion`."""
        return self.champion

    @property
    def uri(self) -> str:
        """URI from which MLflow loads the version."""
        plain = self.champion is not None or self.fault is not None
        return f"models:/{self.name}/{self.version}" if plain else f"models:/{self.name}@{ALIAS}"

    def __str__(self) -> str:
        made = f"registered model '{self.name}' version {self.version}"
        if self.fault is not None:
            return f"{made}, not made {ALIAS}: it must load and predict in a fresh process, but: {self.fault}"
        if self.champion is None:
            return f"{made} as {ALIAS}"
        version, value = self.champion
        return f"{made}; version {version} stays {ALIAS}, its recorded value {value:g} is better"
