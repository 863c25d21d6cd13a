"""The README and the docs page run, and what is generated in them is fresh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mltune.engines import list_engines

ROOT = Path(__file__).parents[1]
BUILT_IN = ("optuna", "ray")


def blocks(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), flags=re.S)


def engine_table() -> str:
    """The README's table: what each engine offers."""
    engines = [engine for engine in list_engines() if engine.name in BUILT_IN]
    lines = ["| | " + " | ".join(engine.name for engine in engines) + " |", "|---" * (len(engines) + 1) + "|"]
    for kind in ("algorithms", "schedulers"):
        names = sorted({name for engine in engines for name in getattr(engine, kind)})
        if kind == "algorithms":
            names.insert(0, "auto")
        for name in names:
            offered = ["yes" if name == "auto" or name in getattr(engine, kind) else "" for engine in engines]
            lines.append(f"| {kind.removesuffix('s')} `{name}` | " + " | ".join(offered) + " |")
    return "\n".join(lines)


def test_the_engine_table_of_the_readme_is_fresh() -> None:
    found = re.search(r"<!-- table:.*?-->\n(.*?)<!-- end of table -->", (ROOT / "README.md").read_text(), flags=re.S)
    assert found is not None
    assert found[1].strip() == engine_table(), "replace the table in README.md by this:\n" + engine_table()


@pytest.mark.processes
def test_the_example_of_the_readme_runs(client: MlflowClient, capfd: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("README.md")[0], "README.md", "exec"), {"__name__": "__main__"})
    assert client.get_model_version_by_alias("iris", "champion")
    assert len(client.search_runs(["0"])) == 11
    assert "'C':" in capfd.readouterr().out


@pytest.mark.processes
def test_the_page_on_loops_and_studies_runs(client: MlflowClient) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks("docs/from-loops-to-studies.md"):
        exec(compile(block, "from-loops-to-studies.md", "exec"), names)
    studies = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    assert {run.data.tags["mltune.algorithm"].partition("(")[0] for run in studies} >= {
        "manual",
        "grid",
        "random",
        "tpe",
    }


def test_links_lead_somewhere() -> None:
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("projects/*/README.md"),
        *ROOT.glob("plugins/*/README.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
