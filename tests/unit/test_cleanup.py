"""What a killed run left is found by its journal, and only that."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.cli.main import cli, main
from bench.errors import InputError, LeftoversError, LockedError, StoreError, exit_code_of
from bench.results.records import RunRecord
from bench.results.store import RunFolder, read_record
from bench.run import cleanup
from bench.run.cleanup import (
    Leftovers,
    clean_run,
    close_cleaned_runs,
    find_run,
    find_runs_below,
    find_unfinished_runs,
)
from bench.run.session import read_resumable_run
from bench.system.bounded import MOST_BYTES
from bench.system.journal import read_journal
from bench.system.lock import PATH_VARIABLE, hold_host_lock, read_holder
from bench.system.processes import RUN_ID_FILE, identify_process
from tests.bookinfo import ROOT
from tests.factory import ConfigSpec, RunSpec, make_run

RUN = "20261123T031500Z-dead-7f3a"
SMALL = RunSpec(configurations=(ConfigSpec("baseline"),), repeats=1, warmup_s=1, duration_s=2)
APPLY = {"step": "apply", "context": "lab"}


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of the test's own, and no process that could be found."""
    path = tmp_path / "machine.lock"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    monkeypatch.setattr(cleanup, "find_marked_processes", dict)
    monkeypatch.setattr(cleanup, "end_strays", lambda _run: ())
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
    return find_unfinished_runs(find_runs_below(output)[0] if run is None else [find_run(run)])


def working_folder(tmp_path: Path, mark: str | None) -> dict[str, Any]:
    """The journal's line about a working folder with that mark and a key; None: killed while it was made."""
    folder = tmp_path / "meshbench-0123abcd"
    folder.mkdir()
    if mark is not None:
        (folder / RUN_ID_FILE).write_text(mark, "utf-8")
        (folder / "details.key").touch()
    return {"step": "make-folder", "path": str(folder)}


@pytest.mark.parametrize("mark", [RUN, None], ids=["marked", "killed before the mark"])
def test_removes_working_folder_of_the_run(tmp_path: Path, mark: str | None) -> None:
    """A working folder with the run's mark is removed, and so is an empty one that the run was creating."""
    line = working_folder(tmp_path, mark)
    run = write_run(tmp_path / "results", {"step": "begin"}, line)
    [found] = unfinished(tmp_path / "results")
    assert found.folders == (Path(line["path"]),)
    clean_run(found)
    assert not Path(line["path"]).exists()
    assert unfinished(run.parent) == ()


@pytest.mark.parametrize("mark", ["20261123T031500Z-other-1111", ""], ids=["another run's", "unmarked, with content"])
def test_spares_folder_of_another_run(tmp_path: Path, mark: str) -> None:
    """Another run may have the same random name, although the journal names it."""
    line = working_folder(tmp_path, mark)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    [found] = unfinished(tmp_path / "results")
    assert found.folders == ()
    clean_run(found)
    assert Path(line["path"]).exists()


def test_accepts_folder_that_was_already_removed(tmp_path: Path) -> None:
    """Case 59: a folder that no longer exists counts as removed."""
    run = write_run(tmp_path / "results", {"step": "begin"}, {"step": "make-folder", "path": str(tmp_path / "gone")})
    [found] = unfinished(tmp_path / "results")
    clean_run(found)
    assert unfinished(tmp_path / "results") == ()
    assert read_journal(run / "journal.jsonl")[-1]["step"] == "end"


def test_prints_command_for_the_cluster(tmp_path: Path) -> None:
    """The journal has the context; a run on this machine has none."""
    write_run(tmp_path / "results", {"step": "begin"}, APPLY, APPLY)
    [found] = unfinished(tmp_path / "results")
    assert found.summary.endswith(
        f"; objects on a cluster, to remove with: meshbench cleanup --context lab --run {found.run}"
    )
    write_run(tmp_path / "local", {"step": "begin"})
    assert unfinished(tmp_path / "local")[0].summary.endswith("folders none")


def test_reports_folder_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 58: exit code 7 with the names, and the run stays unfinished."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    [found] = unfinished(tmp_path / "results")
    with pytest.raises(LeftoversError, match=f"could not be removed: .*{line['path']}") as caught:
        clean_run(found)
    assert exit_code_of(caught.value) == 7
    assert len(unfinished(tmp_path / "results")) == 1


def test_ended_run_leaves_nothing(tmp_path: Path) -> None:
    """The journal of an ended run has an end after its last begin."""
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"})
    assert unfinished(tmp_path / "results") == ()


def test_finds_folder_of_ended_run(tmp_path: Path) -> None:
    """A run that ended without removing its working folder is found, as its keys are still there."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line, {"step": "end"})
    [found] = unfinished(tmp_path / "results")
    clean_run(found)
    assert not Path(line["path"]).exists()
    assert unfinished(tmp_path / "results") == ()


def test_resumed_and_killed_run_is_unfinished(tmp_path: Path) -> None:
    """The end of its first part does not count for the second."""
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"}, {"step": "begin"})
    assert [found.run_id for found in unfinished(tmp_path / "results")] == [RUN]


def test_finds_run_by_the_lock_file(tmp_path: Path, lock: Path) -> None:
    """The lock file names a run that was killed before it had a folder or after its last line; its name is removed."""
    run = tmp_path / "elsewhere" / RUN
    lock.write_text(json.dumps({"run": str(run), "pid": 1, "since": 0.0}), "utf-8")
    [found] = unfinished(tmp_path / "results")
    clean_run(found)
    assert read_holder() == (None, False)
    ended = write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"})
    lock.write_text(json.dumps({"run": str(ended), "pid": 1, "since": 0.0}), "utf-8")
    [found] = unfinished(tmp_path / "results")
    clean_run(found)
    assert read_holder() == (None, False)
    assert len(read_journal(ended / "journal.jsonl")) == 2


def test_refuses_running_run(tmp_path: Path) -> None:
    """A running run has to be ended first; one in another folder does not prevent the cleanup."""
    run = write_run(tmp_path / "results", {"step": "begin"})
    with hold_host_lock(run, RUN):
        with pytest.raises(LockedError, match="is running"):
            unfinished(tmp_path / "results")
        with pytest.raises(LockedError, match="is running"):
            unfinished(tmp_path, run=run)
        assert unfinished(tmp_path / "others") == ()


def test_refuses_run_whose_process_lives(tmp_path: Path) -> None:
    """Also one on a cluster, which the host lock does not name; a later process with its pid does not count."""
    begin: dict[str, Any] = {"step": "begin", **identify_process(os.getpid())}
    write_run(tmp_path / "results", begin)
    with pytest.raises(LockedError, match=rf"{RUN} is running \(process {begin['pid']}\)"):
        unfinished(tmp_path / "results")
    for number, other in enumerate(({"started_ns": begin["started_ns"] - 1}, {"boot": "another"}, {"pid": 10**30})):
        write_run(tmp_path / f"later-{number}", {**begin, **other})
        assert [found.run_id for found in unfinished(tmp_path / f"later-{number}")] == [RUN]


def test_knows_running_process_of_older_version(tmp_path: Path) -> None:
    """Its journal has the start by the wall clock."""
    created = psutil.Process().create_time()
    write_run(tmp_path / "results", {"step": "begin", "pid": os.getpid(), "created": created})
    with pytest.raises(LockedError, match="is running"):
        unfinished(tmp_path / "results")
    write_run(tmp_path / "later", {"step": "begin", "pid": os.getpid(), "created": created - 5})
    assert len(unfinished(tmp_path / "later")) == 1


def test_journal_ends_no_process(tmp_path: Path) -> None:
    """A process belongs to a run by the id in its environment, which no journal can give it."""
    own = {"pid": os.getpid(), "created": psutil.Process().create_time(), **identify_process(os.getpid())}
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "start-process-done", "name": "details", **own})
    [found] = unfinished(tmp_path / "results")
    assert found.processes == ()


@pytest.mark.parametrize("name", ["work", "meshbench-0123abcd.bak", "meshbench-", "meshbench-0123ABCD"])
def test_spares_folder_with_another_name(tmp_path: Path, name: str) -> None:
    """An empty folder that a journal names, and one with the run's id, is removed only where its name is ours."""
    (tmp_path / name).mkdir()
    line = {"step": "make-folder", "path": str(tmp_path / name)}
    write_run(tmp_path / "results", {"step": "begin"}, line)
    assert unfinished(tmp_path / "results")[0].folders == ()
    (tmp_path / name / RUN_ID_FILE).write_text(RUN, "utf-8")
    assert unfinished(tmp_path / "results")[0].folders == ()


def test_spares_target_of_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link with the name of a working folder, a relative path and one with `..` lead elsewhere."""
    line = working_folder(tmp_path, None)
    (tmp_path / "meshbench-11111111").symlink_to(line["path"])
    monkeypatch.chdir(tmp_path)
    paths = ("meshbench-0123abcd", f"{tmp_path}/results/../meshbench-0123abcd", f"{tmp_path}/meshbench-11111111")
    write_run(tmp_path / "results", {"step": "begin"}, *({**line, "path": path} for path in paths))
    assert unfinished(tmp_path / "results")[0].folders == ()


@pytest.mark.parametrize(
    "odd", [b"\xff\xfe", b"[" * 100_000, b'{"step": "make-folder", "path": 7}', b'{"step": "apply"}']
)
def test_reports_damaged_journal_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: bytes) -> None:
    """What the other lines say is removed; the exit code is 7, as the damaged line may have named more. Other runs are
    cleaned up as ever."""
    line, output = working_folder(tmp_path, RUN), tmp_path / "results"
    journal = write_run(output, {"step": "begin"}, line).rename(output / "first") / "journal.jsonl"
    first, second = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join((first, odd, second, b"")))
    write_run(output, {"step": "begin"})
    assert ended(["cleanup", "--output", str(output)]) == 7
    captured = capsys.readouterr()
    assert f"{journal}:2: this line is damaged\n" in captured.err
    assert captured.out.count("cleaned up: ") == 1
    assert not Path(line["path"]).exists()
    cli.main(["cleanup", "--output", str(output)], standalone_mode=False)


@pytest.mark.parametrize("kind", ["pipe", "folder", "large"])
def test_unreadable_journal_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """No cleanup waits for a pipe or reads what is endless; the run is named, and the others are cleaned up."""
    line, output = working_folder(tmp_path, RUN), tmp_path / "results"
    journal = write_run(output).rename(output / "odd") / "journal.jsonl"
    journal.unlink()
    if kind == "pipe":
        os.mkfifo(journal)
    elif kind == "folder":
        journal.mkdir()
    else:
        journal.touch()
        os.truncate(journal, MOST_BYTES + 1)
    write_run(output, {"step": "begin"}, line)
    assert ended(["cleanup", "--output", str(output)]) == 7
    captured = capsys.readouterr()
    assert f"{output}/odd: skipped, so leftover objects may remain: {journal}: is " in captured.err.replace(
        "Is a", "is"
    )
    assert "1 folders removed" in captured.out
    assert not Path(line["path"]).exists()


def test_closes_killed_run_after_cluster_cleanup(tmp_path: Path) -> None:
    """Runs of other clusters and running runs stay open."""
    apply = {"step": "apply", "context": "kind-mesh"}
    run = write_run(tmp_path / "results", {"step": "begin"}, apply)
    other = write_run(tmp_path / "other", {"step": "begin"}, {**apply, "context": "eks"})
    alive = write_run(tmp_path / "alive", {"step": "begin", **identify_process(os.getpid())}, apply)
    for folder in (run, other, alive):
        close_cleaned_runs(folder.parent, context="kind-mesh", run_id="20261123T031500Z-other-1111")
        assert read_journal(folder / "journal.jsonl")[-1]["step"] == "apply"
        close_cleaned_runs(folder.parent, context="kind-mesh", run_id=None)
    last = [read_journal(folder / "journal.jsonl")[-1]["step"] for folder in (run, other, alive)]
    assert last == ["end", "apply", "apply"]


def test_keeps_killed_run_open_until_cluster_is_clean(tmp_path: Path) -> None:
    """Leftovers on this machine are removed; the next cleanup still knows of the cluster."""
    line = working_folder(tmp_path, RUN)
    run = write_run(tmp_path / "results", {"step": "begin"}, line, APPLY)
    for folders in ((Path(line["path"]),), ()):
        [found] = unfinished(tmp_path / "results")
        assert (found.folders, found.contexts) == (folders, ("lab",))
        clean_run(found)
    assert not Path(line["path"]).exists()
    assert read_journal(run / "journal.jsonl")[-1]["step"] == "apply"


@pytest.mark.parametrize("cluster_first", [True, False])
def test_closes_killed_run_when_both_are_clean(tmp_path: Path, cluster_first: bool) -> None:
    """In either order of the two cleanups; the folder records it, and there are no leftovers."""
    made = make_run(tmp_path / "results", SMALL)
    run, folder = made.path, RunFolder(made.path, made.record)
    folder.update(status="running", exit_code=None, cleanup_ok=None)
    for line in ({"step": "begin"}, working_folder(tmp_path, run.name), APPLY):
        folder.journal.write(**line)
    folder.journal.close()
    for on_cluster in (cluster_first, not cluster_first):
        assert read_record(run / "run.json", RunRecord).cleanup_ok is None
        if on_cluster:
            close_cleaned_runs(run.parent, context="lab", run_id=run.name)
        else:
            clean_run(unfinished(run.parent)[0])
    assert read_record(run / "run.json", RunRecord).cleanup_ok is True
    assert unfinished(run.parent) == ()


def test_closes_run_after_both_contexts(tmp_path: Path) -> None:
    """A run that was resumed with another machine's kubeconfig used one cluster under two names."""
    run = write_run(tmp_path / "results", {"step": "begin"}, APPLY, {**APPLY, "context": "admin@lab"})
    close_cleaned_runs(run.parent, context="lab", run_id=RUN)
    [found] = unfinished(run.parent)
    assert found.contexts == ("admin@lab",)
    close_cleaned_runs(run.parent, context="admin@lab", run_id=RUN)
    assert unfinished(run.parent) == ()


def test_ended_run_needs_no_cluster_command(tmp_path: Path) -> None:
    """It removed or reported its objects; only its working folder is left."""
    write_run(tmp_path / "results", {"step": "begin"}, working_folder(tmp_path, RUN), APPLY, {"step": "end"})
    [found] = unfinished(tmp_path / "results")
    assert found.commands == ()


def test_reports_command_for_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each cleanup names it until the cluster is clean, also for all runs at once; a dry run is no failure."""
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
def test_knows_run_by_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """The id in run.json decides which run is ended and removed: a renamed folder, a link, `.`."""
    line = working_folder(tmp_path, RUN)
    run = write_run(tmp_path / "results", {"step": "begin"}, line).rename(tmp_path / "results" / "last-night")
    link = tmp_path / "latest"
    link.symlink_to(run)
    monkeypatch.chdir(run)
    path = {"renamed": run, "link": link, "working folder": Path(), "with a slash": Path(f"{run}/")}[named]
    [found] = unfinished(tmp_path / "results", run=path)
    assert (found.run_id, found.run) == (RUN, run)
    clean_run(found)
    assert not Path(line["path"]).exists()
    assert unfinished(tmp_path / "results") == ()


def test_renamed_run_frees_the_lock(tmp_path: Path, lock: Path) -> None:
    """The lock file has the old path of the same run, which is examined once."""
    run = write_run(tmp_path / "results", {"step": "begin"})
    lock.write_text(json.dumps({"run": str(run), "pid": 1, "since": 0.0, "run_id": RUN}), "utf-8")
    run.rename(tmp_path / "results" / "last-night")
    [found] = unfinished(tmp_path / "results")
    clean_run(found)
    assert read_holder() == (None, False)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("results/TYPO", "no such folder"),
        ("results", "it has no run.json"),
        (f"results/{RUN}/trials", "it has no run.json"),
        (f"results/{RUN}/run.json", "no such folder"),
        (".", "it has no run.json"),
    ],
)
def test_refuses_folder_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str, why: str
) -> None:
    """A wrong path is an error on this machine and on a cluster; nothing is removed."""
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
def test_refuses_empty_run_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """An unset variable or a selector names no run, and never all runs."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    monkeypatch.chdir(tmp_path)
    assert ended(["cleanup", *arguments]) == 2
    assert arguments[-2] in capsys.readouterr().err
    assert Path(line["path"]).exists()


def test_refuses_two_different_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--run` and `--run-id` have to name the same run."""
    run = write_run(tmp_path / "results", {"step": "begin"})
    other = "20261123T031500Z-other-1111"
    assert ended(["cleanup", "--context", "nowhere", "--run", str(run), "--run-id", other]) == 2
    assert f"--run-id {other} and --run {run} are different runs" in capsys.readouterr().err


def test_reports_damaged_record_and_cleans_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run with a damaged record is not reported as clean, and the name of its folder decides nothing."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    damaged = tmp_path / "results" / "20261123T031500Z-other-1111"
    damaged.mkdir()
    (damaged / "journal.jsonl").write_text('{"step": "begin"}\n', "utf-8")
    for content in ("", "[]", "{}", '{"run_id": 5}', '{"run_id": "../.."}', "[" * 99_999):
        (damaged / "run.json").write_text(content, "utf-8")
        assert ended(["cleanup", "--output", str(tmp_path / "results")]) == 7
        assert f"{damaged}: skipped, so leftover objects may remain" in capsys.readouterr().err
        with pytest.raises(StoreError, match="is damaged: it has no valid run_id"):
            find_run(damaged)
    assert not Path(line["path"]).exists()


def test_knows_run_without_a_record_by_the_lock(tmp_path: Path, lock: Path) -> None:
    """`--run` accepts a folder without a record only if the lock file names it."""
    run = tmp_path / "results" / RUN
    run.mkdir(parents=True)
    with pytest.raises(InputError, match="not a run's folder"):
        find_run(run)
    lock.write_text(json.dumps({"run": str(run), "pid": 1, "since": 0.0, "run_id": RUN}), "utf-8")
    [found] = unfinished(tmp_path / "results", run=run)
    clean_run(found)
    assert read_holder() == (None, False)


def test_finds_process_of_ended_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is found by the run id that it carries; the journal of an ended run does not list it."""
    write_run(tmp_path / "results", {"step": "begin"}, {"step": "end"})
    monkeypatch.setattr(cleanup, "find_marked_processes", lambda: {RUN: (7, 8), "another": (9,)})
    [found] = unfinished(tmp_path / "results")
    assert found.processes == (7, 8)


def test_interrupted_cleanup_reports_what_may_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the command that continues the cleanup."""

    def interrupt(_run: str) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "my results"
    run = write_run(output, {"step": "begin"}, working_folder(tmp_path, RUN))
    monkeypatch.setattr(cleanup, "end_strays", interrupt)
    for arguments in (["--output", str(output)], ["--run", str(run)]):
        assert ended(["cleanup", *arguments]) == 130
        printed = capsys.readouterr().err
        assert printed.endswith(
            f"leftover objects may remain; to continue: meshbench cleanup {arguments[0]} '{arguments[1]}'\n"
        )
        assert "nothing was left" not in printed


@pytest.mark.parametrize("named", ["results/TYPO", f"results/{RUN}", f"results/{RUN}/run.json"])
def test_refuses_invalid_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    """A wrong path, or the folder of one run, contains no runs, so that nothing can be reported as removed."""
    line = working_folder(tmp_path, RUN)
    write_run(tmp_path / "results", {"step": "begin"}, line)
    monkeypatch.chdir(tmp_path)
    assert ended(["cleanup", "--output", named]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"meshbench: --output {named}: ")
    assert captured.out == ""
    assert Path(line["path"]).exists()


def test_accepts_missing_results_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A nightly job begins with a cleanup, before there are any results."""
    monkeypatch.chdir(tmp_path)
    cli.main(["cleanup"], standalone_mode=False)
    assert capsys.readouterr().out == "no leftover objects of runs below results\n"


@pytest.mark.parametrize("name", ["loop", "a" * 300])
def test_refuses_invalid_path(tmp_path: Path, name: str) -> None:
    """A link to itself and a name that is too long are messages, not tracebacks."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="not a run's folder: no such folder"):
        find_run(tmp_path / name)


def test_reports_only_what_was_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of a run's folder names the same working folder; a run on a cluster has none here."""
    run = write_run(tmp_path / "results", {"step": "begin"}, working_folder(tmp_path, RUN))
    shutil.copytree(run, tmp_path / "results" / "copy")
    cli.main(["cleanup", "--output", str(tmp_path / "results")], standalone_mode=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "cleaned up" in line]
    assert [line.partition(", ")[2] for line in lines] == ["1 folders removed", "0 folders removed"]
    write_run(tmp_path / "elsewhere", {"step": "begin"}, APPLY)
    assert ended(["cleanup", "--output", str(tmp_path / "elsewhere")]) == 7
    assert "cleaned up" not in capsys.readouterr().out


def test_failed_cleanup_does_not_stop_the_others(
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
    assert "could not be removed" in captured.err
    assert "cleaned up: 0 processes ended, 0 folders removed" in captured.out


def test_cleans_cluster_without_results_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels identify the objects of a run from any machine."""
    monkeypatch.setattr(
        "bench.targets.cluster.teardown.cleanup.cluster_cleanup", lambda *_, **__: iter(["all is gone"])
    )
    cli.main(["cleanup", "--context", "lab", "--output", str(tmp_path / "none")], standalone_mode=False)
    assert capsys.readouterr().out == "all is gone\n"


def test_closed_run_of_version_1_is_not_resumed(tmp_path: Path) -> None:
    """A killed run that is cleaned up gets a record of today's format, and is not resumed either."""
    shutil.copytree(ROOT / "tests" / "recorded" / "run_of_version_1", run := tmp_path / "run")
    stored = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps({**stored, "status": "running", "exit_code": None}), "utf-8")
    clean_run(Leftovers(run, stored["run_id"], (), ()))
    record = read_record(run / "run.json", RunRecord)
    assert (record.schema_version, record.status, record.issues[0].code) == (2, "interrupted", "killed")
    with pytest.raises(InputError, match="version 1 of the format"):
        read_resumable_run(run, on_cluster=False)
