"""What a scenario gives to its Locust file: options, variables, tags."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import InputError
from bench.load.generator import LoadSpec
from bench.scenario.load_settings import EnvironmentValue, read_environment
from bench.scenario.loader import load_scenario
from bench.scenario.model import Load
from bench.system.redaction import redact
from tests.load_pods import make_load_spec


def load(folder: Path, **settings: Any) -> Load:
    content = {
        "name": "mine",
        "title": "Mine",
        "load": settings,
        "reference": None,
        "configurations": [{"name": "baseline", "mesh": "none"}],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return load_scenario(str(folder / "mine.yaml")).load


def words_of(order: LoadSpec) -> list[str]:
    return order.argv("python", locustfile="l.py", recorder="r.py", folder="/f")


def test_options_and_tags_are_words_of_the_command_line(tmp_path: Path) -> None:
    """A value is one word with its option, so that it may begin with a dash; `true` is an option without a value."""
    found = load(
        tmp_path,
        options={"region": "-eu west", "pages": 3, "share": 0.5, "verbose": True},
        tags=["read", "write"],
        exclude_tags=["slow"],
    )
    order = replace(make_load_spec(), options=found.options, tags=found.tags, exclude_tags=found.exclude_tags)
    own = ["--tags", "read", "write", "--exclude-tags", "slow"]
    own += ["--region=-eu west", "--pages=3", "--share=0.5", "--verbose"]
    assert words_of(order) == [*words_of(make_load_spec()), *own]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"--region": "eu"}}, "load.options.--region: '--region' is not the name of an option"),
        ({"options": {"quiet": False}}, "load.options.quiet: is false: an option without a value is given or not"),
        ({"options": {"pages": [1]}}, "load.options.pages: must be text, a number or true, not a list"),
        ({"env": {"PORT": 80}}, "load.env.PORT: must be text, {env: NAME} or {file: PATH}, not 80; quote numbers"),
        ({"env": {"A B": "x"}}, "load.env.A B: 'A B' is not the name of a variable"),
        ({"env": {"HOME": "/x"}}, "load.env.HOME: is set by meshbench itself"),
        ({"env": {"T": {"env": "A", "file": "b"}}}, "load.env.T: must be text, or a mapping with one key"),
        ({"env": {"T": {"value": "x"}}}, "load.env.T: must be text, or a mapping with one key"),
        ({"env": {"T": {"envv": "A"}}}, "load.env.T.envv: unknown key 'envv'"),
        ({"tags": ["a b"]}, "load.tags[0]: 'a b' is not a tag"),
    ],
)
def test_invalid_setting_has_one_message(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """Each has the path of its key and why it is wrong."""
    with pytest.raises(InputError) as failure:
        load(tmp_path, **settings)
    (problem,) = failure.value.problems
    assert message in str(problem)


def test_record_has_names_and_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored scenario is read again as it was, and has no value that a run reads when it starts."""
    monkeypatch.setenv("CI_TOKEN", "never-recorded")
    env = {"REGION": "eu", "TOKEN": {"env": "CI_TOKEN"}, "KEY": {"file": "key.txt"}}
    found = load(tmp_path, env=env, options={"pages": 3})
    stored = json.loads(found.model_dump_json())
    assert stored["env"] == {"REGION": "eu", "TOKEN": {"env": "CI_TOKEN"}, "KEY": {"file": f"{tmp_path}/key.txt"}}
    assert Load.model_validate(stored) == found
    assert Load.model_validate_json(found.model_dump_json()) == found


def test_values_are_read_when_a_run_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or a file, whose last line end is no part of it; they are redacted from then on."""
    monkeypatch.setenv("CI_TOKEN", "abc-123-def-456")
    (tmp_path / "key.txt").write_text("two\nlines-789-xyz\n")
    env = {
        "REGION": EnvironmentValue(value="eu"),
        "TOKEN": EnvironmentValue(env="CI_TOKEN"),
        "KEY": EnvironmentValue(file=str(tmp_path / "key.txt")),
    }
    secret = {"TOKEN": "abc-123-def-456", "KEY": "two\nlines-789-xyz"}
    assert read_environment(env) == {"REGION": "eu", **secret}
    assert read_environment(env, secrets_only=True) == secret
    assert redact("got abc-123-def-456 and lines-789-xyz") == "got REDACTED and REDACTED"


def test_every_missing_value_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set, a file that is missing or is not text: a problem each."""
    monkeypatch.delenv("CI_TOKEN", raising=False)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    files = {name: EnvironmentValue(file=str(tmp_path / name)) for name in ("missing", "binary")}
    with pytest.raises(InputError) as failure:
        read_environment({"TOKEN": EnvironmentValue(env="CI_TOKEN"), **files})
    assert [str(one) for one in failure.value.problems] == [
        "load.env.TOKEN: the variable CI_TOKEN is not set; hint: export CI_TOKEN=...",
        f"load.env.missing: {tmp_path}/missing: No such file or directory",
        f"load.env.binary: {tmp_path}/binary: is not text in UTF-8",
    ]
