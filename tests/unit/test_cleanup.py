"""What a killed run left is found by its journal, and only that."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.cli.main import cli, main
from bench.errors import InputError, LeftoversError, LockedError, StoreError
from bench.results.records import RunRecord
from bench.results.store import RunFolder, read_record
from bench.run import cleanup
from bench.run.cleanup import (
    Leftovers,
    clean,
    close_cleaned,
    named_run,
    recorded_processes,
    runs_below,
    unfinished_runs,
)
from bench.system.journal import read_journal
from bench.system.lock import PATH_VARIABLE, machine_lock, read_holder
from bench.system.processes import MARK, this_process
from tests.factory import Made, Simulated, make_run

RUN = "20261123T031500Z-dead-7f3a"
SMALL = Made(configurations=(Simulated("baseline"),), repeats=1, warmup_s=1, duration_s=2)
APPLY = {"step": "apply", "context": "lab"}


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of the test's own, and no process that could be found."""
    path = tmp_path / "machine.lock"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    monkeypatch.setattr(cleanup, "marked_processes", dict)
    monkeypatch.setattr(cleanup, "end_strays", lambda _run, _recorded: ())
    return path


def write_run(output: Path, *steps: dict[str, Any]) -> Path:
    """A run's folder with a journal."""
    run = output / RUN
    run.mkdir(parents=True)
    (run / "journal.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps), "utf-8")
    (run / "run.json").write_text(json.dumps({"run_id": RUN}), "utf-8")
    return run


def unfinished(output: Path, *, run: Path | None = None) -> tuple[Leftovers, ...]:
    """What is left of all runs below a folder, or of one."""
    return unfinished_runs(runs_below(output)[0] if run is None else [named_run(run)])


def working_folder(tmp_path: Path, mark: str | None) -> dict[str, Any]:
    """The journal's line about a working folder with that mark and a key; None: killed while it was made."""
    folder = tmp_path / "work"
    folder.mkdir()
    if mark is not None:
        (folder / MARK).write_text(mark, "utf-8")
        (folder / "details.key").touch()
    return {"step": "make-folder", "path": str(folder)}


@pytest.mark.parametrize("mark", [RUN, None], ids=["marked", "killed before the mark"])
def test_a_working_folder_of_the_run_is_removed(tmp_path: Path, mark: str | None) -> None:
    """By its mark; and an empty one that the run was just making."""
    line = working_folder(tmp_path, mark)
    run = write_run(tmp_path / "results", {"step": "begin"}, line)
    [found] = unfinished(tmp_path / "results")
    assert found.folders == (Path(line["path"]),)
    clean(found)
    assert not Path(line["path"]).exists()
    assert unfinished(run.parent) == ()


@pytest.mark.parametrize("mark", ["20261123T031500Z-other-1111", ""], ids=["another run's", "nobody's, with content"])
def test_a_folder_that_is_not_the_runs_is_spared(tmp_path: Path, mark: str) -> None:
    """Although the journal names it: another run may have the same random name."""
    line = working_folder(tmp_path, mark)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    [found] = unfinished(tmp_path / "results")
    assert found.folders == ()
    clean(found)
    assert Path(line["path"]).exists()


def test_a_folder_that_was_removed_by_hand_is_no_mistake(tmp_path: Path) -> None:
    """Case 59: gone is as good as removed."""
    run = write_run(tmp_path / "results", {"step": "begin"}, {"step": "make-folder", "path": str(tmp_path / "gone")})
    [found] = unfinished(tmp_path / "results")
    clean(found)
    assert unfinished(tmp_path / "results") == ()
    assert read_journal(run / "journal.jsonl")[-1]["step"] == "end"


def test_a_run_on_a_cluster_is_told_with_the_command_for_the_cluster(tmp_path: Path) -> None:
    """Its journal knows the context; a run that was on this machine alone names none."""
    write_run(tmp_path / "results", {"step": "begin"}, APPLY, APPLY)
    [found] = unfinished(tmp_path / "results")
    assert found.told.endswith(f"; on a cluster, for which: meshbench cleanup --context lab --run {found.run}")
    write_run(tmp_path / "local", {"step": "begin"})
    assert unfinished(tmp_path / "local")[0].told.endswith("folders none")


def test_what_cannot_be_removed_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 58: exit 7 with the names, and the run stays unfinished."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    [found] = unfinished(tmp_path / "results")
    with pytest.raises(LeftoversError, match=f"still there after cleaning up: .*{line['path']}") as caught:
        clean(found)
    assert caught.value.exit_code == 7
    assert len(unfinished(tmp_path / "results")) == 1


def test_a_run_that_ended_leaves_nothing(tmp_path: Path) -> None:
    """Its journal has an end after the last begin."""
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"})
    assert unfinished(tmp_path / "results") == ()


def test_a_run_that_ended_without_removing_its_folder_is_found(tmp_path: Path) -> None:
    """It could say so itself, but its keys are still there."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line, {"step": "end"})
    [found] = unfinished(tmp_path / "results")
    clean(found)
    assert not Path(line["path"]).exists()
    assert unfinished(tmp_path / "results") == ()


def test_a_run_that_was_resumed_and_killed_is_unfinished(tmp_path: Path) -> None:
    """The end of its first part does not count for the second."""
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"}, {"step": "begin"})
    assert [found.run_id for found in unfinished(tmp_path / "results")] == [RUN]


def test_the_run_in_the_lock_file_is_found_wherever_it_is(tmp_path: Path, lock: Path) -> None:
    """Also one that was killed before it had a folder, or after its last word: its name is taken out."""
    run = tmp_path / "elsewhere" / RUN
    lock.write_text(json.dumps({"run": str(run), "pid": 1, "since": 0.0}), "utf-8")
    [found] = unfinished(tmp_path / "results")
    clean(found)
    assert read_holder() == (None, False)
    ended = write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"})
    lock.write_text(json.dumps({"run": str(ended), "pid": 1, "since": 0.0}), "utf-8")
    [found] = unfinished(tmp_path / "results")
    clean(found)
    assert read_holder() == (None, False)
    assert len(read_journal(ended / "journal.jsonl")) == 2


def test_a_run_that_is_alive_is_refused(tmp_path: Path) -> None:
    """It has to be ended first; one elsewhere does not stand in the way."""
    run = write_run(tmp_path / "results", {"step": "begin"})
    with machine_lock(run, RUN):
        with pytest.raises(LockedError, match="is running"):
            unfinished(tmp_path / "results")
        with pytest.raises(LockedError, match="is running"):
            unfinished(tmp_path, run=run)
        assert unfinished(tmp_path / "others") == ()


def test_processes_are_known_by_id_and_start_time() -> None:
    """Only those that the journal says were started: an intent has no process id yet."""
    lines: list[dict[str, Any]] = [
        {"step": "start-process", "name": "details"},
        {"step": "start-process-done", "name": "details", "pid": 7, "created": 1.5},
        {"step": "ended-process", "name": "details", "pid": 7},
    ]
    assert recorded_processes(lines) == {7: 1.5}


def test_a_run_whose_process_lives_is_refused(tmp_path: Path) -> None:
    """Also one on a cluster, which this machine's lock does not name; a later process of that number is not it."""
    begin: dict[str, Any] = {"step": "begin", **this_process()}
    write_run(tmp_path / "results", begin)
    with pytest.raises(LockedError, match=rf"{RUN} is running \(process {begin['pid']}\)"):
        unfinished(tmp_path / "results")
    write_run(tmp_path / "later", {**begin, "created": begin["created"] - 5})
    assert [found.run_id for found in unfinished(tmp_path / "later")] == [RUN]


def test_a_killed_run_is_closed_once_its_cluster_is_clean(tmp_path: Path) -> None:
    """And no other one: not one of another cluster, nor one that goes on."""
    apply = {"step": "apply", "context": "kind-mesh"}
    run = write_run(tmp_path / "results", {"step": "begin"}, apply)
    other = write_run(tmp_path / "other", {"step": "begin"}, {**apply, "context": "eks"})
    alive = write_run(tmp_path / "alive", {"step": "begin", **this_process()}, apply)
    for folder in (run, other, alive):
        close_cleaned(folder.parent, context="kind-mesh", run_id="20261123T031500Z-other-1111")
        assert read_journal(folder / "journal.jsonl")[-1]["step"] == "apply"
        close_cleaned(folder.parent, context="kind-mesh", run_id=None)
    last = [read_journal(folder / "journal.jsonl")[-1]["step"] for folder in (run, other, alive)]
    assert last == ["end", "apply", "apply"]


def test_a_killed_run_is_not_closed_while_its_cluster_is_full(tmp_path: Path) -> None:
    """What is on this machine goes; the next look still knows of the cluster."""
    line = working_folder(tmp_path, RUN)
    run = write_run(tmp_path / "results", {"step": "begin"}, line, APPLY)
    for folders in ((Path(line["path"]),), ()):
        [found] = unfinished(tmp_path / "results")
        assert (found.folders, found.contexts) == (folders, ("lab",))
        clean(found)
    assert not Path(line["path"]).exists()
    assert read_journal(run / "journal.jsonl")[-1]["step"] == "apply"


@pytest.mark.parametrize("cluster_first", [True, False])
def test_a_killed_run_is_closed_when_machine_and_cluster_are_clean(tmp_path: Path, cluster_first: bool) -> None:
    """In whichever order; its folder says so, and then nothing is left of it."""
    made = make_run(tmp_path / "results", SMALL)
    run, folder = made.path, RunFolder(made.path, made.record)
    folder.update(status="running", exit_code=None, cleanup_ok=None)
    for line in ({"step": "begin"}, working_folder(tmp_path, run.name), APPLY):
        folder.journal.write(**line)
    folder.journal.close()
    for on_cluster in (cluster_first, not cluster_first):
        assert read_record(run / "run.json", RunRecord).cleanup_ok is None
        if on_cluster:
            close_cleaned(run.parent, context="lab", run_id=run.name)
        else:
            clean(unfinished(run.parent)[0])
    assert read_record(run / "run.json", RunRecord).cleanup_ok is True
    assert unfinished(run.parent) == ()


def test_a_killed_run_that_used_a_cluster_by_two_names_is_closed_after_both(tmp_path: Path) -> None:
    """As one that was resumed from another machine's kubeconfig."""
    run = write_run(tmp_path / "results", {"step": "begin"}, APPLY, {**APPLY, "context": "admin@lab"})
    close_cleaned(run.parent, context="lab", run_id=RUN)
    [found] = unfinished(run.parent)
    assert found.contexts == ("admin@lab",)
    close_cleaned(run.parent, context="admin@lab", run_id=RUN)
    assert unfinished(run.parent) == ()


def test_a_run_that_ended_needs_no_command_for_its_cluster(tmp_path: Path) -> None:
    """It removed, or told, what it had made there; only a folder of it is left here."""
    write_run(tmp_path / "results", {"step": "begin"}, working_folder(tmp_path, RUN), APPLY, {"step": "end"})
    [found] = unfinished(tmp_path / "results")
    assert found.commands == ()


def test_the_command_says_what_removes_the_rest_and_that_something_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time until the cluster is clean, and for all runs at once; a list is no failure."""
    output = tmp_path / "my results"
    run = write_run(output, {"step": "begin"}, APPLY)
    other = output / "20261123T031500Z-dead-0b1c"
    other.mkdir()
    (other / "journal.jsonl").write_text('{"step": "begin"}\n', "utf-8")
    (other / "run.json").write_text(json.dumps({"run_id": other.name}), "utf-8")
    cli.main(["cleanup", "--output", str(output), "--list"], standalone_mode=False)
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["cleanup", "--output", str(output)])
        assert ended.value.code == 7
        assert f"\nmeshbench cleanup --context lab --run '{run}'\n" in capsys.readouterr().err
    assert [found.run_id for found in unfinished(output)] == [RUN]


def ended(arguments: list[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("named", ["renamed", "link", "working folder", "with a slash"])
def test_a_run_is_known_by_its_record_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """A renamed folder, a link to it, `.`: the id in run.json decides what is ended and removed."""
    line = working_folder(tmp_path, RUN)
    run = write_run(tmp_path / "results", {"step": "begin"}, line).rename(tmp_path / "results" / "last-night")
    link = tmp_path / "latest"
    link.symlink_to(run)
    monkeypatch.chdir(run)
    path = {"renamed": run, "link": link, "working folder": Path(), "with a slash": Path(f"{run}/")}[named]
    [found] = unfinished(tmp_path / "results", run=path)
    assert (found.run_id, found.run) == (RUN, run)
    clean(found)
    assert not Path(line["path"]).exists()
    assert unfinished(tmp_path / "results") == ()


def test_a_renamed_run_frees_the_machine_that_it_held(tmp_path: Path, lock: Path) -> None:
    """The lock file has the path of before; it is the same run all the same, and is looked at once."""
    run = write_run(tmp_path / "results", {"step": "begin"})
    lock.write_text(json.dumps({"run": str(run), "pid": 1, "since": 0.0, "run_id": RUN}), "utf-8")
    run.rename(tmp_path / "results" / "last-night")
    [found] = unfinished(tmp_path / "results")
    clean(found)
    assert read_holder() == (None, False)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("results/TYPO", "there is no such folder"),
        ("results", "it has no run.json"),
        (f"results/{RUN}/trials", "it has no run.json"),
        (f"results/{RUN}/run.json", "there is no such folder"),
        (".", "it has no run.json"),
    ],
)
def test_what_is_no_runs_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str, why: str
) -> None:
    """Neither "any run" nor "nothing is left": a slip of the pen cleans nothing up, here and on a cluster."""
    line = working_folder(tmp_path, RUN)
    (write_run(tmp_path / "results", {"step": "begin"}, line) / "trials").mkdir()
    monkeypatch.chdir(tmp_path)
    for context in ([], ["--context", "nowhere"]):
        assert ended(["cleanup", "--run", path, *context]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"meshbench: {path}: not a run's folder: {why}; give the folder of one run")
        assert captured.out == ""
    assert Path(line["path"]).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--run", ""],
        ["--output", ""],
        ["--context", "nowhere", "--run", ""],
        ["--context", "nowhere", "--run-id", ""],
        ["--context", "nowhere", "--run-id", " "],
        ["--context", "nowhere", "--run-id", "a,b"],
        ["--context", "nowhere", "--run-id", "a in (b)"],
        ["--context", "nowhere", "--run-id", "-"],
        ["--context", "nowhere", "--run-id", "a" * 64],
    ],
)
def test_an_empty_name_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A variable that is not set, or a text that is a selector, means no run and least of all every run."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    monkeypatch.chdir(tmp_path)
    assert ended(["cleanup", *arguments]) == 2
    assert arguments[-2] in capsys.readouterr().err
    assert Path(line["path"]).exists()


def test_two_names_of_two_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which one is meant cannot be known."""
    run = write_run(tmp_path / "results", {"step": "begin"})
    other = "20261123T031500Z-other-1111"
    assert ended(["cleanup", "--context", "nowhere", "--run", str(run), "--run-id", other]) == 2
    assert f"--run-id {other} and --run {run} are two runs" in capsys.readouterr().err


def test_a_damaged_record_is_reported_and_the_other_runs_are_cleaned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What may be left of it is not called cleaned up; nothing is chosen by its folder's name."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    damaged = tmp_path / "results" / "20261123T031500Z-other-1111"
    damaged.mkdir()
    (damaged / "journal.jsonl").write_text('{"step": "begin"}\n', "utf-8")
    for content in ("", "[]", "{}", '{"run_id": 5}', '{"run_id": "../.."}', "[" * 99_999):
        (damaged / "run.json").write_text(content, "utf-8")
        assert ended(["cleanup", "--output", str(tmp_path / "results")]) == 7
        assert f"{damaged}: skipped, so something may be left of it" in capsys.readouterr().err
        with pytest.raises(StoreError, match="is damaged: it names no run"):
            named_run(damaged)
    assert not Path(line["path"]).exists()


def test_a_run_that_was_killed_before_its_record_is_known_by_the_lock(tmp_path: Path, lock: Path) -> None:
    """The lock file names it, and `--run` with that path means it; any other folder without a record is none."""
    run = tmp_path / "results" / RUN
    run.mkdir(parents=True)
    with pytest.raises(InputError, match="not a run's folder"):
        named_run(run)
    lock.write_text(json.dumps({"run": str(run), "pid": 1, "since": 0.0, "run_id": RUN}), "utf-8")
    [found] = unfinished(tmp_path / "results", run=run)
    clean(found)
    assert read_holder() == (None, False)


def test_a_run_that_ended_and_left_a_process_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the id that the process carries; the journal of a run that ended says nothing of it."""
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"})
    monkeypatch.setattr(cleanup, "marked_processes", lambda: {RUN: (7, 8), "another": (9,)})
    [found] = unfinished(tmp_path / "results")
    assert found.processes == (7, 8)


def test_a_cleanup_that_is_interrupted_does_not_say_that_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it had not come to is still there: the message has the command that goes on."""

    def interrupt(_run: str, _recorded: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "my results"
    run = write_run(output, {"step": "begin"}, working_folder(tmp_path, RUN))
    monkeypatch.setattr(cleanup, "end_strays", interrupt)
    for arguments in (["--output", str(output)], ["--run", str(run)]):
        assert ended(["cleanup", *arguments]) == 130
        said = capsys.readouterr().err
        assert said.endswith(f"something may be left; to go on: meshbench cleanup {arguments[0]} '{arguments[1]}'\n")
        assert "nothing was left" not in said


@pytest.mark.parametrize("named", ["results/TYPO", f"results/{RUN}", f"results/{RUN}/run.json", "a" * 300])
def test_an_output_that_is_no_folder_of_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    """A typo, or one run's folder: nothing was looked at, so nothing can be said to be gone."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    monkeypatch.chdir(tmp_path)
    assert ended(["cleanup", "--output", named]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"meshbench: --output {named}: ")
    assert captured.out == ""
    assert Path(line["path"]).exists()


def test_results_that_are_not_there_yet_are_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A nightly job begins with a cleanup, the first one, too."""
    monkeypatch.chdir(tmp_path)
    cli.main(["cleanup"], standalone_mode=False)
    assert capsys.readouterr().out == "nothing is left of the runs below results\n"


@pytest.mark.parametrize("name", ["loop", "a" * 300])
def test_a_path_that_leads_nowhere_is_no_run(tmp_path: Path, name: str) -> None:
    """A link to itself and a name that is too long are messages, not tracebacks."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="not a run's folder: there is no such folder"):
        named_run(tmp_path / name)


def test_only_what_was_removed_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of a run's folder names the same working folder; a run on a cluster has nothing here."""
    run = write_run(tmp_path / "results", {"step": "begin"}, working_folder(tmp_path, RUN))
    shutil.copytree(run, tmp_path / "results" / "copy")
    cli.main(["cleanup", "--output", str(tmp_path / "results")], standalone_mode=False)
    said = [line for line in capsys.readouterr().out.splitlines() if "cleaned up" in line]
    assert [line.partition(", ")[2] for line in said] == ["1 folders removed", "0 folders removed"]
    write_run(tmp_path / "elsewhere", {"step": "begin"}, APPLY)
    assert ended(["cleanup", "--output", str(tmp_path / "elsewhere")]) == 7
    assert "cleaned up" not in capsys.readouterr().out


def test_a_run_that_cannot_be_cleaned_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its leftovers are listed at the end, with exit code 7."""
    output = tmp_path / "results"
    write_run(output, {"step": "begin"}, working_folder(tmp_path, RUN)).rename(output / "first")
    run = write_run(output, {"step": "begin"}, {"step": "make-folder", "path": str(tmp_path / "gone")})
    (run / "run.json").write_text('{"run_id": "20261123T031500Z-other-1111"}', "utf-8")
    run.rename(output / "second")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    assert ended(["cleanup", "--output", str(output)]) == 7
    captured = capsys.readouterr()
    assert "still there after cleaning up" in captured.err
    assert "cleaned up: 0 processes ended, 0 folders removed" in captured.out


def test_a_cluster_is_cleaned_from_where_no_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its labels are enough: any machine will do, without a folder of results."""
    monkeypatch.setattr(
        "bench.targets.cluster.teardown.cleanup.cluster_cleanup", lambda *_, **__: iter(["all is gone"])
    )
    cli.main(["cleanup", "--context", "lab", "--output", str(tmp_path / "none")], standalone_mode=False)
    assert capsys.readouterr().out == "all is gone\n"
