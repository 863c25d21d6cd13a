"""What travels with a model: its own modules, and pins of the packages that they import."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from mltune.trial import Trial
from mltune.worker import dependencies
from mltune.worker.dependencies import Dependencies, find_dependencies, references

Write = Callable[[dict[str, str]], Any]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules of the user's own, by path without suffix, and imports the last of them."""
    folder = tmp_path / "project"
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    _forget()

    def written(sources: dict[str, str]) -> Any:
        for name, source in sources.items():
            path = folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return importlib.import_module(list(sources)[-1].replace("/", "."))

    yield written
    for name in set(sys.modules) - before:
        if folder in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]
    _forget()


def _forget() -> None:
    """Tests write different modules of the same name."""
    for cached in (dependencies.find_dependencies, dependencies._is_own, dependencies._spec):
        cached.cache_clear()


def found(model: Any) -> Dependencies:
    return find_dependencies(references(model), frozenset())


def own(model: Any) -> list[str]:
    return [Path(path).name for path in found(model).code_paths]


def test_packages_that_own_modules_import_are_pinned(write: Write) -> None:
    thing = write(
        {
            "late": "import psutil",
            "thing": """
                from typing import TYPE_CHECKING
                import yaml
                if TYPE_CHECKING:
                    import rich
                class Thing:
                    def work(self):
                        import late
                if __name__ == "__main__":
                    import hypothesis
            """,
        }
    ).Thing()
    assert own(thing) == ["late.py", "thing.py"]
    assert {pin.partition("==")[0] for pin in found(thing).requirements} == {"PyYAML", "psutil"}
    assert f"PyYAML=={yaml.__version__}" in found(thing).requirements


def test_packages_that_the_model_refers_to_are_pinned() -> None:
    names = {pin.partition("==")[0] for pin in found(LogisticRegression().fit([[0], [1]], [0, 1])).requirements}
    assert names == {"numpy", "scikit-learn"}


def test_only_modules_that_the_model_refers_to_travel(write: Write) -> None:
    thing = write({"unrelated": "class Other: pass", "thing": "class Thing: pass"}).Thing()
    assert own(thing) == ["thing.py"]
    assert own(LogisticRegression()) == []


def test_what_arrays_of_objects_hold_is_found(write: Write) -> None:
    thing = write({"thing": "class Thing: pass"}).Thing()
    assert own([np.array([thing], dtype=object)]) == ["thing.py"]


def test_functions_and_modules_are_found(write: Write) -> None:
    thing = write({"thing": "def double(values): return values * 2"})
    assert own(FunctionTransformer(thing.double)) == ["thing.py"]
    assert own([thing]) == ["thing.py"]


def test_numbers_are_not_read() -> None:
    huge = np.broadcast_to(np.float64(0), (10**6, 10**6))  # 8 TB, were they written
    assert "numpy:ndarray" in references({"weights": huge})


def test_a_package_travels_as_a_folder(write: Write) -> None:
    thing = write(
        {
            "pack/__init__": "",
            "pack/sibling": "import json",
            "pack/sub/__init__": "from pack import sibling",
            "pack/sub/thing": "from ..sibling import json\nclass Thing: pass",
        }
    ).Thing()
    (path,) = found(thing).code_paths
    assert Path(path).name == "pack"
    assert Path(path).is_dir()


def test_a_module_that_imports_mltune_is_named(write: Write) -> None:
    net = write({"training": "import mltune.errors\nclass Net: pass"}).Net()
    with pytest.warns(UserWarning, match=r"module 'training', which imports mltune: move the model's class into a fil"):
        found(net)


def test_an_object_of_mltunes_is_named() -> None:
    with pytest.warns(UserWarning, match="holds an object of mltune's"):
        find_dependencies(references([Trial({})]), frozenset({"yaml"}))


def test_another_module_of_the_package_may_import_mltune(write: Write) -> None:
    net = write({"pack/__init__": "", "pack/train": "import mltune", "pack/model": "class Net: pass"}).Net()
    assert own(net) == ["pack"]
