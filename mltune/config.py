"""The study file: the arguments of ``mltune.tune`` as YAML. All faults are reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError

from mltune.errors import RequestError, SpaceError, closest, nearest
from mltune.former import former_fault, with_current_names
from mltune.goal import Goal
from mltune.params import NAME_RULE, is_name
from mltune.search import Spec
from mltune.space import SearchSpace
from mltune.trial import DURATION, Direction, Models

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def parse_duration(given: Any) -> Any:
    """Return a duration in seconds, given as a number or as text such as ``90``, ``90s``, ``10m``, ``1.5h``, ``2d``."""
    if isinstance(given, str):
        match = _DURATION.fullmatch(given.strip())
        if match is None:
            raise ValueError("must be seconds or a number with s, m, h or d, such as 10m")
        return float(match[1]) * _UNITS[match[2] or "s"]
    return given


def _parse_spec(given: Any) -> Any:
    """Parse a name, or a mapping such as ``{name: asha, min_resource: 1}``."""
    if isinstance(given, str):
        return Spec(given)
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return Spec(given["name"], {str(key): value for key, value in given.items() if key != "name"})
    raise ValueError("must be a name, or a mapping with `name` and options")


def _parse_retries(given: Any) -> Any:
    """Check the number of retries for each cause of failure, and add the defaults."""
    if not isinstance(given, Mapping):
        raise ValueError("must map causes of failure to how often a trial is tried again")
    for cause, times in given.items():
        if cause not in RETRIES:
            raise ValueError(f"must have causes of failure as keys ({', '.join(RETRIES)})")
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise ValueError("must have whole numbers from 0 as values")
    return {**RETRIES, **given}


def _check_name(given: str) -> str:
    if not is_name(given):
        raise ValueError(f"must be {NAME_RULE}")
    if given == DURATION:
        raise ValueError(f"must not be '{DURATION}', under which mltune records how long a trial took")
    return given


def _parse_space(given: Any) -> Any:
    return given if isinstance(given, SearchSpace) else SearchSpace(given)


RETRIES = {"worker-died": 2, "timeout": 0, "exception": 0}
"""The default number of retries of a failed trial, by cause of failure."""

Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
SpecField = Annotated[Spec, BeforeValidator(_parse_spec)]


class StudyConfig(BaseModel):
    """The settings of a study as requested; the fields are the keys of a study file.

    ``algorithm: auto`` and a missing ``seed``, ``n_trials`` or ``executor`` are resolved when the study starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str = Field(min_length=1, max_length=200)
    objective: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    metric: Annotated[str, AfterValidator(_check_name)] = "value"
    direction: Direction
    space: Annotated[SearchSpace, BeforeValidator(_parse_space)]
    initial_points: tuple[dict[str, Any], ...] = ()
    engine: str = "optuna"
    executor: str | None = Field(default=None, min_length=1)
    algorithm: SpecField = Spec("auto")
    scheduler: SpecField = Spec("none")
    n_trials: Annotated[int, Field(ge=1, strict=True)] | None = None
    n_jobs: Annotated[int, Field(ge=1, strict=True)] = 1
    timeout: Duration | None = None
    grace_period: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)] = 30.0
    trial_timeout: Duration | None = None
    trial_memory: Annotated[ByteSize, Field(gt=0)] | None = None
    retries: Annotated[dict[str, int], BeforeValidator(_parse_retries)] = Field(default_factory=lambda: dict(RETRIES))
    store_timeout: Duration = 600.0
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] | None = None
    resources: dict[str, float] = Field(default_factory=dict)
    keep_models: Models = Models.ALL
    registered_model_name: str | None = Field(default=None, min_length=1, pattern=r"^[^/:]+$")
    experiment_name: str | None = Field(default=None, min_length=1)

    @property
    def goal(self) -> Goal:
        """The metric and its direction."""
        return Goal(self.metric, self.direction)

    def to_yaml(self) -> str:
        """Return the text of a study file with these settings."""
        data = self.model_dump(mode="json", exclude={"space", "algorithm", "scheduler"})
        data = {key: value for key, value in data.items() if value not in (None, [], {})}
        for name in ("algorithm", "scheduler"):
            spec: Spec = getattr(self, name)
            data[name] = {"name": spec.name, **spec.options} if spec.options else spec.name
        return yaml.dump(data | {"space": self.space.to_dict()}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Draft:
    """The settings of a study as requested, and what is wrong with each by itself.

    Attributes:
        config: The settings. A wrong key is replaced by its default, a required one by a stand-in.
        faults: What is wrong, one sentence each.
        wrong: The keys that are wrong, missing, or probably meant by an unknown key. What only follows from them must
            not be told.
    """

    config: StudyConfig
    faults: tuple[str, ...] = ()
    wrong: frozenset[str] = frozenset()

    def checked(self) -> StudyConfig:
        """Return the settings, or raise RequestError with all faults."""
        if self.faults:
            raise RequestError(self.faults)
        return self.config


_STAND_INS = {
    "name": "study",
    "direction": Direction.MINIMIZE,
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.5}},  # that any algorithm can search
}


def draft_study(data: Mapping[str, Any]) -> Draft:
    """Read the settings of a study from plain data; keys may have their former names."""
    keys = with_current_names(data)
    try:
        return Draft(StudyConfig.model_validate(keys))
    except ValidationError as error:
        errors = error.errors()
    wrong = {str(each["loc"][0]) for each in errors}
    unknown = wrong - StudyConfig.model_fields.keys()
    meant = (closest(key, StudyConfig.model_fields) for key in unknown)
    wrong |= {key for key in meant if key is not None and keys.get(key) is None}
    if "space" in wrong:
        wrong.add("initial_points")
    usable = {key: value for key, value in keys.items() if key not in wrong}
    stand_ins = {key: value for key, value in _STAND_INS.items() if key not in usable}
    faults = tuple(fault for each in errors for fault in _faults(each))
    return Draft(StudyConfig.model_validate(stand_ins | usable), faults, frozenset(wrong))


def validate(data: Mapping[str, Any]) -> StudyConfig:
    """Return the settings of a study from plain data; keys may have their former names.

    Raises:
        RequestError: The data is invalid; the error lists all faults, one sentence each.
    """
    return draft_study(data).checked()


def draft_study_file(path: Path, overrides: Mapping[str, Any]) -> Draft:
    """Read a study file.

    Args:
        path: The YAML file.
        overrides: Keys and values that replace those of the file.

    Raises:
        RequestError: The file does not exist, or is not a YAML mapping.
    """
    draft = draft_study({**_read(path), **with_current_names(overrides)})
    if draft.config.objective is not None or "objective" in draft.wrong:
        return draft
    fault = "`objective` is missing: give the function to tune as module:function"
    return replace(draft, faults=(*draft.faults, fault), wrong=draft.wrong | {"objective"})


def _faults(error: Any) -> list[str]:
    """Convert one of pydantic's errors to mltune's sentences."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, SpaceError):
        return list(cause.faults)
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            unknown = f"unknown key '{key}'; {nearest(key, StudyConfig.model_fields)}"
            return [former_fault(key, error["input"]) or unknown]
        case "missing":
            return [f"`{key}` is missing"]
        case "value_error":
            return [f"`{key}` {cause}, but got {error['input']!r}"]
        case "string_pattern_mismatch" if key == "objective":
            return [f"`objective` must be module:function, such as train:train, but got {error['input']!r}"]
    message = re.sub(r"^\w+ should ", "must ", error["msg"])
    return [f"`{key}` {message}, but got {error['input']!r}"]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(f"the study file must exist, but there is no {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the study file must be readable text, but {path} is not: {error}") from None
    return read_yaml(text, str(path))


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the keys and values of a study file, under the names of today.

    Args:
        text: The file's text.
        where: The file's name for error messages.

    Raises:
        RequestError: The text is not a YAML mapping.
    """
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"the study file must be YAML, but {where} is not: {_yaml_problem(error)}") from None
    if not isinstance(data, dict):
        raise RequestError(f"the study file must map keys to values, but {where} holds {type(data).__name__}")
    return with_current_names({str(key): value for key, value in data.items()})


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """A loader of plain YAML: no tags, no duplicate keys, YAML 1.2 scalars (``1e-3`` is a number, ``no`` a string)."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads this class attribute
        first: [
            (tag, regexp)
            for tag, regexp in resolvers
            if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is there twice", node.value[i][0].start_mark
                )
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes strings that :class:`_Loader` would read as another type."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
    )
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        list("-+0123456789."),
    )
