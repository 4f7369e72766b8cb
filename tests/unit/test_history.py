"""The history of a gate."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.history import (
    HistoryLine,
    append_lines,
    find_last_success,
    list_new_conditions,
    list_new_versions,
    read_history,
)
from bench.analysis.night import make_lines, read_conditions
from bench.errors import InputError, StoreError
from bench.results.records import ClusterRecord
from bench.results.store import StoredRun, read_run, write_record
from bench.scenario.load_settings import EnvironmentValue
from bench.scenario.model import Pair
from tests.factory import ENVIRONMENT, ISTIO_POLICIES, ConfigSpec, RunSpec, make_run
from tests.issues import codes, issue

TWO = (ConfigSpec("baseline", median_ms=6.0), ConfigSpec("istio", "istio", median_ms=9.0))
SHORT = RunSpec(TWO, name="nightly", warmup_s=5, duration_s=15)


def line(number: int, **changes: Any) -> HistoryLine:
    """A night's line, +40 % against the baseline."""
    night = HistoryLine(
        run_id=f"run-{number}",
        at=datetime(2026, 11, 1, 3, 15, tzinfo=UTC) + timedelta(days=number),
        scenario="nightly",
        configuration="istio",
        reference="baseline",
        conditions={"cpus": "8"},
        fingerprint="f",
        valid=True,
        ln_ratio=math.log(1.4),
        ln_p95_ms=(2.1, 2.2, 2.3),
        ln_reference_p95_ms=(1.8, 1.9, 2.0),
        verdict="slower",
        seed=7,
        order=(("baseline", "istio"),),
        run_exit_code=0,
    )
    return night.model_copy(update=changes)


def changed(run: StoredRun, **changes: Any) -> StoredRun:
    """The same folder with other fields in run.json."""
    write_record(run.path / "run.json", run.record.model_copy(update=changes))
    return read_run(run.path)


def test_line_has_ratio_seed_and_order(tmp_path: Path) -> None:
    """The ratio of a line is that of the geometric means of its own repeats."""
    run = make_run(tmp_path, SHORT)
    (found,) = make_lines(run)
    assert found.valid
    assert len(found.ln_p95_ms) == len(found.ln_reference_p95_ms) == 3
    difference = sum(found.ln_p95_ms) / 3 - sum(found.ln_reference_p95_ms) / 3
    assert found.ln_ratio == pytest.approx(difference)
    assert (found.run_id, found.seed, found.order) == (run.record.run_id, 7, run.record.plan.order)


def test_text_and_seed_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    """Title, seed, margin and reruns change nothing that a valid trial measures, so the baseline stays."""
    run = make_run(tmp_path, SHORT)
    words = {"title": "Another", "description": "Other", "seed": 9, "margin": 0.2, "rerun_invalid": False}
    other = changed(run, scenario=run.record.scenario.model_copy(update=words))
    assert make_lines(other)[0].fingerprint == make_lines(run)[0].fingerprint


def test_named_pairs_change_neither_conditions_nor_lines(tmp_path: Path) -> None:
    """Additional comparisons change neither the measurement nor what a gate watches."""
    run = make_run(tmp_path, replace(SHORT, configurations=ISTIO_POLICIES))
    pairs = (Pair(configuration="istio-policies", reference="istio"),)
    other = changed(run, scenario=run.record.scenario.model_copy(update={"contrasts": pairs}))
    assert [line.configuration for line in make_lines(other)] == ["istio", "istio-policies"]
    assert {line.fingerprint for line in make_lines(other)} == {line.fingerprint for line in make_lines(run)}


@pytest.mark.parametrize("environment", [{"cpus": 4}, {"envoy": "1.41.0"}, {"meshbench": "9.9"}, {"python": "3.12.1"}])
def test_environment_changes_the_fingerprint(tmp_path: Path, environment: dict[str, Any]) -> None:
    """A run on another machine or with another version has other conditions."""
    run = make_run(tmp_path, SHORT)
    before = make_lines(run)[0].fingerprint
    other = changed(run, environment=ENVIRONMENT.model_copy(update=environment))
    assert make_lines(other)[0].fingerprint != before


def test_load_and_locustfile_change_the_fingerprint(tmp_path: Path) -> None:
    """Another load, or another text of the Locust file under the same name, is another measurement."""
    run = make_run(tmp_path, SHORT)
    prints = {make_lines(run)[0].fingerprint}
    (run.path / "locust" / "bookinfo.py").write_text("# other users\n")
    prints.add(make_lines(run)[0].fingerprint)
    load = run.record.scenario.load.model_copy(update={"users": 21})
    prints.add(make_lines(changed(run, scenario=run.record.scenario.model_copy(update={"load": load})))[0].fingerprint)
    assert len(prints) == 3


def test_what_travels_with_the_locustfile_changes_the_fingerprint(tmp_path: Path) -> None:
    """A helper's text is a condition like the Locust file's; an older run, which has the file alone, is comparable."""
    run = make_run(tmp_path, SHORT)
    locustfile = run.path / "locust" / "bookinfo.py"
    before = make_lines(run)[0].fingerprint
    (locustfile.parent / "names.csv").write_text("jane\n")
    assert make_lines(run)[0].fingerprint != before
    locustfile.rename(run.path / "locustfile.py")
    assert make_lines(run)[0].fingerprint == before


def test_variables_are_known_by_name_and_literal_value(tmp_path: Path) -> None:
    """Options, tags and literal values change the fingerprint; where an unrecorded value is read does not."""
    run = make_run(tmp_path, SHORT)

    def fingerprint(**load: Any) -> str:
        changed_load = run.record.scenario.load.model_copy(update=load)
        return make_lines(changed(run, scenario=run.record.scenario.model_copy(update={"load": changed_load})))[
            0
        ].fingerprint

    eu, us = ({"REGION": EnvironmentValue(value=value)} for value in ("eu", "us"))
    here, there = ({"REGION": EnvironmentValue(env=name)} for name in ("MINE", "CI"))
    assert fingerprint(env=here) == fingerprint(env=there)
    prints = [fingerprint(env=env) for env in ({}, eu, us, here)]
    prints += [fingerprint(options={"region": "eu"}), fingerprint(tags=("a",)), fingerprint(exclude_tags=("a",))]
    assert len(set(prints)) == len(prints)


def test_design_and_its_windows_change_the_fingerprint(tmp_path: Path) -> None:
    """Numbers of different designs estimate different things; a run without a design is a sequential one."""
    run = make_run(tmp_path, SHORT)
    first = read_conditions(run)
    assert "design" not in first
    named = changed(run, scenario=run.record.scenario.model_copy(update={"design": "sequential"}))
    assert read_conditions(named) == first
    designs = (("duet", 1), ("interleaved", 2), ("interleaved", 4))
    plans = [run.record.plan.model_copy(update={"design": design, "rounds": rounds}) for design, rounds in designs]
    known = [read_conditions(changed(run, plan=plan)) for plan in plans]
    assert [conditions.pop("design") for conditions in known] == [
        "duet",
        "interleaved (2 windows a block)",
        "interleaved (4 windows a block)",
    ]
    assert known == [first] * 3


def test_users_of_a_duet_change_the_fingerprint(tmp_path: Path) -> None:
    """Another number of users of each configuration is another load."""
    run = make_run(tmp_path, SHORT)
    load = run.record.scenario.load.model_copy(update={"users_each": 5})
    other = changed(run, scenario=run.record.scenario.model_copy(update={"load": load}))
    assert read_conditions(other) != read_conditions(run)


def test_run_with_a_missing_repeat_is_invalid(tmp_path: Path) -> None:
    """A configuration that lacks one of its planned repeats makes the night invalid."""
    run = make_run(tmp_path, SHORT)
    cut = changed(
        run, trials=run.record.trials[:-1], status="interrupted", exit_code=130, issues=(issue("interrupted"),)
    )
    (found,) = make_lines(cut)
    assert not found.valid
    assert codes(found.issues) == ["interrupted"]


def test_refuses_unfinished_runs_and_runs_without_reference(tmp_path: Path) -> None:
    """Both are input errors and are not recorded."""
    run = make_run(tmp_path, SHORT)
    with pytest.raises(InputError, match="has not ended"):
        make_lines(changed(run, status="running"))
    alone = make_run(tmp_path / "alone", RunSpec(TWO, warmup_s=1, duration_s=2, reference=None))
    with pytest.raises(InputError, match="needs a scenario with a `reference`"):
        make_lines(alone)


def test_line_of_a_paired_run_has_the_blocks_of_both_sides(tmp_path: Path) -> None:
    """Values of a duet belong to the same blocks, in the order of time, also where each side lost another one."""
    run = make_run(tmp_path, replace(SHORT, design="duet", repeats=8, duration_s=5, block_sd=0.3))
    lost = ("-istio-3", "-baseline-5")
    kept = tuple(entry for entry in run.record.trials if not entry.folder.endswith(lost))
    (found,) = make_lines(changed(run, trials=kept))
    assert found.is_paired
    assert len(found.ln_p95_ms) == len(found.ln_reference_p95_ms) == 6
    difference = sum(one - other for one, other in zip(found.ln_p95_ms, found.ln_reference_p95_ms, strict=True)) / 6
    assert found.ln_ratio == pytest.approx(difference)


def test_line_has_margin_and_versions(tmp_path: Path) -> None:
    """A line keeps the scenario's margin, and of a cluster the versions of the meshes and the images that ran."""
    run = make_run(tmp_path, SHORT)
    assert (make_lines(run)[0].margin, make_lines(run)[0].versions) == (0.1, {})
    cluster = ClusterRecord(
        version="v1.31.0", nodes=1, images={}, mesh_values={}, mesh_versions={"istio": "1.28.0"}, existing_mesh=False
    )
    for trial in run.trials:
        image = {f"web {trial.record.configuration[0]}": f"web@sha256:{trial.record.block}"}
        write_record(trial.path / "trial.json", trial.record.model_copy(update={"images": image}))
    trials = tuple(entry.model_copy(update={"sha256": {}}) for entry in run.record.trials)
    (found,) = make_lines(changed(run, cluster=cluster, trials=trials))
    images = "web@sha256:1, web@sha256:2, web@sha256:3"
    assert found.versions == {"istio": "1.28.0", "image of web b": images, "image of web i": images}


def test_names_what_changed_between_nights() -> None:
    """Conditions and versions have both values, except for hashes; a version that only one night has is no change."""
    before = line(
        1, conditions={"cpus": "8", "scenario": "a", "address_host": "x"}, versions={"istio": "1", "new": "2"}
    )
    after = line(
        2, conditions={"cpus": "4", "scenario": "b", "address_host": "y", "design": "duet"}, versions={"istio": "2"}
    )
    assert list_new_conditions(before, after) == (
        "design: sequential / duet",
        "cpus: 8 / 4",
        "the scenario",
        "the machine",
    )
    assert list_new_versions(before, after) == ("istio: 1 / 2",)
    assert list_new_conditions(after, after) == list_new_versions(after, after) == ()


def test_last_success_is_that_of_valid_nights_with_a_ratio() -> None:
    """Neither an invalid night nor one without a ratio is a success; a regression is."""
    measured = [line(1), line(2, ln_ratio=math.log(9)), line(3, valid=False), line(4, ln_ratio=None)]
    assert find_last_success(measured) == line(2).at
    assert find_last_success(measured[2:]) is None


def test_appending_twice_changes_nothing(tmp_path: Path) -> None:
    """The second time leaves every byte of the file unchanged."""
    path = tmp_path / "deep" / "history.jsonl"
    append_lines(path, [line(1), line(2)])
    before = path.read_bytes()
    assert len(append_lines(path, [line(2), line(1)]).lines) == 2
    assert path.read_bytes() == before


def test_reads_back_appended_lines(tmp_path: Path) -> None:
    """Lines come back equal and sorted by time, whatever order they were written in."""
    path = tmp_path / "history.jsonl"
    append_lines(path, [line(3)])
    append_lines(path, [line(1, ln_ratio=None, valid=False, issues=(issue("interrupted"),))])
    assert read_history(path).lines == (line(1, ln_ratio=None, valid=False, issues=(issue("interrupted"),)), line(3))


def test_accepted_run_replaces_its_line(tmp_path: Path) -> None:
    """The line of an accepted run replaces its earlier line for readers, and stays accepted when appended again."""
    path = tmp_path / "history.jsonl"
    append_lines(path, [line(1)])
    append_lines(path, [line(1, accepted="new Envoy")])
    known = append_lines(path, [line(1)])
    assert [found.accepted for found in known.lines] == ["new Envoy"]
    assert len(path.read_bytes().splitlines()) == 2


def test_torn_last_line_loses_nothing_else(tmp_path: Path) -> None:
    """After a crash in the middle of a line, the lines before and after it are read, and it is reported."""
    path = tmp_path / "history.jsonl"
    append_lines(path, [line(1), line(2)])
    path.write_bytes(path.read_bytes()[:-40])
    known = append_lines(path, [line(2), line(3)])
    assert [found.run_id for found in known.lines] == ["run-1", "run-2", "run-3"]
    assert read_history(path) == known
    assert len(known.problems) == 1
    assert f"{path}:2: this line is skipped" in known.problems[0]


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[]", b"{}", line(9).model_dump_json().replace(":2,", ":3,", 1).encode()]
)
def test_reports_and_skips_foreign_lines(tmp_path: Path, text: bytes) -> None:
    """Bytes that are not text, other JSON, and another format's lines are reported with their number."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(text + b"\n" + line(1).model_dump_json().encode() + b"\n")
    known = read_history(path)
    assert known.lines == (line(1),)
    assert [problem.startswith(f"{path}:1: ") for problem in known.problems] == [True]


def test_line_of_another_version_names_both_versions(tmp_path: Path) -> None:
    """A later format is skipped, and the message says which versions can be read, and what to do."""
    path = tmp_path / "history.jsonl"
    later = line(9).model_dump_json().replace(":2,", ":3,", 1)
    path.write_text(f"{line(1).model_dump_json()}\n{later}\n")
    (problem,) = read_history(path).problems
    assert problem == (
        f"{path}:2: this line is skipped: it has format version 3, this meshbench reads versions 1 and 2; hint: use the"
        " version of meshbench that wrote it"
    )


@pytest.mark.parametrize("content", ["name: nightly\nrepeats: 3\n", '{\n  "run_id": "x"\n}\n', "[]\n", "\x00\x01"])
def test_refuses_files_that_are_no_history(tmp_path: Path, content: str) -> None:
    """A scenario or a record that is named by mistake is neither read as a history nor changed."""
    path = tmp_path / "scenario.yaml"
    path.write_text(content)
    for use in (read_history, lambda file: append_lines(file, [line(1)])):
        with pytest.raises(InputError, match=rf"^{path}: is no history of a gate; hint: "):
            use(path)
    assert path.read_text() == content


def test_merged_history_counts_each_run_once(tmp_path: Path) -> None:
    """Two jobs that pushed at once: lines of both, those of either twice, and the marks of a conflict are read."""
    path = tmp_path / "history.jsonl"
    one, other, both = (line(number).model_dump_json() for number in (2, 3, 1))
    path.write_text(f"{both}\n<<<<<<< ours\n{one}\n{both}\n=======\n{other}\n>>>>>>> theirs\n")
    known = append_lines(path, [line(4)])
    assert [found.run_id for found in known.lines] == ["run-1", "run-2", "run-3", "run-4"]
    assert [problem.split(":")[1] for problem in known.problems] == ["2", "5", "7"]


def test_two_jobs_can_append_at_once(tmp_path: Path) -> None:
    """Runs that several threads append, each twice, are all there, once and complete."""
    path = tmp_path / "history.jsonl"
    with ThreadPool(8) as pool:
        pool.map(lambda number: append_lines(path, [line(number % 40)]), range(80))
    assert len(read_history(path).lines) == len(path.read_bytes().splitlines()) == 40
    assert not read_history(path).problems


def test_unreadable_history_is_one_message(tmp_path: Path) -> None:
    """Reading a missing file and writing to a folder are errors with the path and the reason."""
    with pytest.raises(InputError, match="No such file"):
        read_history(tmp_path / "none.jsonl")
    with pytest.raises(StoreError, match="Is a directory"):
        append_lines(tmp_path, [line(1)])
