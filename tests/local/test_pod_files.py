"""A load's files are fetched from its pod: a real shell runs here what it would run in the pod."""

import hashlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.errors import BadAnswerError, ClusterError, ErrorKind, exit_code_of
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.exec import ExecResult
from bench.load.generator import LoadOutcome, LoadSpec, RunningLoad
from bench.load.recorded import Start
from bench.load.schedule import UnitLoads, drive_alone
from bench.results.issues import Issue
from bench.results.samples import RAW_ROW
from bench.system.cancellation import CancelToken
from bench.system.private_files import PrivateFolder
from bench.system.timing import DEFAULT, Timing
from bench.targets.cluster.kubelet import KubeletUsage
from bench.targets.cluster.load.clock import Offset
from bench.targets.cluster.load.generator import PodGenerator, start_load
from bench.targets.cluster.load.transfer import LoadEnd, PodFiles, parse_parts
from tests.issues import codes, issue
from tests.load_pods import container_status, load_pod, make_load_spec

GONE = ClusterError("reading: no response", kind=ErrorKind.UNREACHABLE)


@pytest.fixture
def order() -> LoadSpec:
    return make_load_spec()


@dataclass
class FakePod:
    """A load pod whose files are in a local folder: `exec` runs there what it would run in the pod. `cuts` is how many
    responses are cut short, `lies` how often files arrive with a byte too many, `refusal` is the kubelets' error."""

    files: Path
    cuts: int = 0
    lies: int = 0
    ran: list[str] = field(default_factory=list)
    account: str = '{"recorded": 3}'
    refusal: ClusterError = GONE
    timing: Timing = DEFAULT

    def exec(self, _pod: str, argv: Sequence[str], *, container: str, **_: Any) -> ExecResult:
        self.ran.append(f"{container}: {argv[-1] if container == 'locust' else argv[3]}")
        if container == "locust":
            (self.files / "generator.json").write_text(self.account, "utf-8")
            return ExecResult(0, b"", "")
        script = argv[2].replace("cd /load", f"cd {self.files}")
        child = subprocess.run([*argv[:2], script, *argv[3:]], capture_output=True, check=False)
        assert child.returncode == 0, child.stderr
        return ExecResult(0, self._corrupt(child.stdout, argv[3]), "")

    def _corrupt(self, output: bytes, what: str) -> bytes:
        if what == "fetch" and output and self.cuts:
            self.cuts -= 1
            return output[:-1]
        size = 3 * RAW_ROW.itemsize
        if what == "fetch" and self.lies and (part := b"samples.bin %d\n" % size) in output:
            self.lies -= 1
            return output.replace(part, b"samples.bin %d\nX" % (size + 1))
        return output

    def get(self, _: Ref) -> Object:
        return load_pod(container_status("locust"), container_status("keeper"))

    def list(self, *_: str, **__: str) -> tuple[Object, ...]:
        return (load_pod(container_status("locust"), container_status("keeper")),)

    def read(self, _path: str, **_: str) -> Object:
        raise self.refusal


@pytest.fixture
def pod(tmp_path: Path) -> FakePod:
    """Three rows, a name and a start."""
    folder = tmp_path / "pod"
    folder.mkdir()
    rows = np.zeros(3, RAW_ROW)
    rows["started_ns"], rows["latency_ns"] = [1e9, 2e9, 3e9], 5e6
    rows.tofile(folder / "samples.bin")
    (folder / "names.txt").write_text("page\n", "utf-8")
    (folder / "started.json").write_text('{"zero_ns": 5, "wall_s": 6.5}', "utf-8")
    return FakePod(folder)


@pytest.fixture
def copies(pod: FakePod, tmp_path: Path) -> PodFiles:
    folder = tmp_path / "here"
    folder.mkdir()
    return PodFiles(cast("Cluster", pod), "here", folder, workers=1)


def is_equal_copy(pod: FakePod, copies: PodFiles) -> bool:
    """Whether every file of the pod is here, with the same content."""
    checksums = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (pod.files, copies.folder)
    ]
    return checksums[0] == checksums[1]


def test_fetch_copies_only_new_data(pod: FakePod, copies: PodFiles) -> None:
    """A second fetch copies what was appended meanwhile and nothing twice."""
    assert copies.fetch() == sum(path.stat().st_size for path in pod.files.iterdir())
    assert copies.fetch() == 0
    with (pod.files / "samples.bin").open("ab") as file:
        file.write(bytes(range(33)))
    assert copies.fetch() == 33
    assert is_equal_copy(pod, copies)
    assert copies.differences() == ""


def test_truncated_fetch_adds_nothing(pod: FakePod, copies: PodFiles) -> None:
    """A truncated response is an error, no local file grows, and the next fetch copies everything."""
    pod.cuts = 1
    with pytest.raises(ClusterError, match="the answer is cut"):
        copies.fetch()
    assert not list(copies.folder.iterdir())
    copies.fetch()
    assert is_equal_copy(pod, copies)


def test_names_are_fetched_after_their_rows(pod: FakePod, copies: PodFiles) -> None:
    """Whatever is recorded during a fetch, every local row has its name."""
    copies.fetch()
    (call,) = pod.ran
    assert call == "keeper: fetch"
    parts = parse_parts(b"samples.bin 1\nXnames.txt 2\nYZ", limits={"samples.bin": 9, "names.txt": 9})
    order = [part.name for part in parts]
    assert order == ["samples.bin", "names.txt"]
    assert copies._names() == ("started.json", "samples.bin", "names.txt", "tasks.bin", "generator.json")


def test_end_fetches_and_verifies_everything(pod: FakePod, copies: PodFiles) -> None:
    """SIGTERM ends Locust, its summary is awaited, and every file is compared."""
    assert LoadEnd(copies, CancelToken()).fetch_fully(timeout_s=5) == ""
    assert pod.ran[0] == "locust: kill -TERM 1"
    assert pod.ran[-1] == "keeper: verify"
    assert is_equal_copy(pod, copies)


def test_corrupt_copy_is_fetched_again(pod: FakePod, copies: PodFiles) -> None:
    """One wrong byte is detected, and replaced from the pod's own file."""
    pod.lies = 1
    assert LoadEnd(copies, CancelToken()).fetch_fully(timeout_s=5) == ""
    assert pod.lies == 0
    assert is_equal_copy(pod, copies)


def test_files_that_stay_corrupt_are_reported(pod: FakePod, copies: PodFiles) -> None:
    """The message names the file and how much of it is here."""
    pod.lies = 2
    message = LoadEnd(copies, CancelToken()).fetch_fully(timeout_s=5)
    assert message == "not all samples were fetched as the pod has them: samples.bin (3 rows here)"


def test_deleted_pod_ends_the_wait(pod: FakePod, copies: PodFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local rows stay, and the message has the second up to which they are complete."""
    copies.fetch()
    monkeypatch.setattr(FakePod, "exec", _refuse)
    monkeypatch.setattr(FakePod, "get", lambda *_: None)
    end, began = LoadEnd(copies, CancelToken()), time.monotonic()
    message = end.fetch_fully(timeout_s=60)
    assert message == "samples may be missing after second 3: running: there is no such pod"
    assert end.exit_code() is None
    assert time.monotonic() - began < 30  # half of its timeout


@pytest.mark.parametrize("kind", [ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND, ErrorKind.UNAVAILABLE])
def test_unreadable_kubelet_summary_does_not_end_a_load(pod: FakePod, copies: PodFiles, kind: ErrorKind) -> None:
    """It is neither an error nor an outage: the load continues, its samples are fetched, and a warning reports it."""
    pod.refusal = ClusterError("reading the kubelet's summary: no", kind=kind)
    meter = KubeletUsage(copies.cluster, ("n1",), {})
    generator = PodGenerator(
        copies, Start(0, 0.0), Offset(0, 0, 0.0), meter, {"locust"}, CancelToken(), private_of(copies)
    )
    generator.tick()
    assert (generator.trouble(), generator.outage.since_s) == ("", None)
    assert is_equal_copy(pod, copies)
    message = "the kubelet of node n1 gave no CPU and memory 1 time: reading the kubelet's summary: no"
    assert generator.issues() == (issue("no-resources", message),)


def _refuse(*_: object, **__: object) -> ExecResult:
    raise ClusterError("running: there is no such pod", kind=ErrorKind.NOT_FOUND)


@dataclass
class HostilePod(FakePod):
    """A load pod that responds to `fetch` with arbitrary data."""

    answer: bytes = b""

    def exec(self, _pod: str, argv: Sequence[str], *, container: str, **options: Any) -> ExecResult:
        if container == "keeper" and argv[3:4] == ["fetch"]:
            assert len(self.answer) <= options["most_bytes"]
            return ExecResult(0, self.answer, "")
        return super().exec(_pod, argv, container=container, **options)


def hostile(pod: FakePod, copies: PodFiles, answer: bytes) -> PodFiles:
    return replace(copies, cluster=cast("Cluster", HostilePod(pod.files, answer=answer)))


@pytest.mark.parametrize("name", ["../outside", "{root}/outside", "samples.bin/../../outside", "here", "."])
def test_hostile_pod_writes_no_other_files(pod: FakePod, copies: PodFiles, tmp_path: Path, name: str) -> None:
    """A path outside the folder refuses the whole response: all of it is added, or nothing."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    answer = f"samples.bin 1\nX{name.format(root=tmp_path)} 3\nssh".encode()
    with pytest.raises(BadAnswerError, match="was not requested"):
        hostile(pod, copies, answer).fetch()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_endless_pod_data_ends_at_the_limit(pod: FakePod, copies: PodFiles) -> None:
    """The fetch stops at the limit for one load, whatever size the pod announces."""
    chunk = 8 * 1024 * 1024
    endless = replace(hostile(pod, copies, b"samples.bin %d\n" % chunk + bytes(chunk)), most_bytes=3 * chunk)
    with pytest.raises(
        BadAnswerError, match=r"larger than the 25165824 bytes of one load; hint: make the load shorter"
    ):
        endless.fetch_all()
    assert (copies.folder / "samples.bin").stat().st_size == 3 * chunk


class NoMeter:
    """A meter that measures nothing."""

    def tick(self) -> None:
        """Do nothing."""

    def read(self) -> None:
        """Return nothing."""

    def rows(self, _: Start) -> list[Any]:
        return []

    def issues(self) -> tuple[Issue, ...]:
        return ()


def private_of(copies: PodFiles) -> PrivateFolder:
    """The private folder of a trial with these copies."""
    return PrivateFolder.of_run(copies.folder, "run")


def loaded(copies: PodFiles, order: LoadSpec) -> tuple[list[LoadOutcome], RunningLoad]:
    """A load of this pod whose window has passed."""
    start = Start(time.perf_counter_ns() - 4_000_000_000, 0.0)
    generator = PodGenerator(copies, start, Offset(0, 0, 0.0), NoMeter(), {"locust"}, CancelToken(), private_of(copies))
    load = RunningLoad(generator, replace(order, warmup_s=1, duration_s=2), copies.folder, wall_s=time.time() - 4)
    return [], load


def run_on(load: RunningLoad, kept: list[LoadOutcome]) -> None:
    """Run a load that has begun to its end."""
    unit = UnitLoads({"one": load}, CancelToken(), lambda *_: None, lambda _, outcome: kept.append(outcome))
    unit.run(drive_alone)


def _odd_name(pod: FakePod) -> None:
    rows = np.fromfile(pod.files / "samples.bin", RAW_ROW)
    rows["name"][1] = 9
    rows.tofile(pod.files / "samples.bin")


def _odd_account(pod: FakePod) -> None:
    pod.account = '{"recorded": ["a"], "problem": 3}'


def _odd_names(pod: FakePod) -> None:
    (pod.files / "names.txt").write_bytes(b"\xff\n")


@pytest.mark.parametrize(("change", "kept", "message"), [
    (_odd_name, 2, "samples.bin: 1 of 3 rows are invalid, the first is row 2"),
    (_odd_account, 3, "generator.json is invalid: problem is not a string"),
    (_odd_names, 3, "names.txt: it is not UTF-8"),
])  # fmt: skip
def test_malformed_files_end_the_load_and_keep_samples(
    pod: FakePod, copies: PodFiles, order: LoadSpec, change: Any, kept: int, message: str
) -> None:
    """One error with exit code 4 names the file, and all other samples are saved before."""
    change(pod)
    outcomes, load = loaded(copies, order)
    with pytest.raises(BadAnswerError, match="what the load pod recorded is invalid") as caught:
        run_on(load, outcomes)
    assert message in str(caught.value)
    assert exit_code_of(caught.value) == 4
    (outcome,) = outcomes
    assert len(outcome.samples) == kept
    assert codes(outcome.issues) == ["interrupted"]
    assert (copies.folder / "samples.parquet").exists()


def test_pod_turning_hostile_keeps_fetched_samples(pod: FakePod, copies: PodFiles, order: LoadSpec) -> None:
    """Fetched samples stay, and the pod is not queried for long."""
    copies.fetch()
    outcomes, load = loaded(hostile(pod, copies, b"../x 1\nX"), order)
    with pytest.raises(BadAnswerError, match="was not requested"):
        run_on(load, outcomes)
    assert len(outcomes[0].samples) == 3


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"zero_ns": NaN, "wall_s": 1}',
        '{"wall_s": 1}',
        '{"zero_ns": [], "wall_s": 1}',
        '{"zero_ns": 4611686018427387903, "wall_s": 1}',
    ],
)
def test_malformed_start_is_one_error(
    pod: FakePod, copies: PodFiles, order: LoadSpec, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A malformed start is an error before there are samples."""
    (pod.files / "started.json").write_text(content, "utf-8")
    monkeypatch.setattr("bench.targets.cluster.load.generator.read_offset", lambda *_: Offset(0, 0, 0.0))
    monkeypatch.setattr(FakePod, "exec", _without_touch(FakePod.exec))
    with pytest.raises(BadAnswerError, match=r"is invalid: started\.json"):
        start_load(
            copies.cluster,
            order,
            copies.folder,
            namespace="here",
            meter=NoMeter(),
            watch=CancelToken(),
            private=private_of(copies),
        ).wait_for_start()


def _without_touch(act: Any) -> Any:
    def run(self: FakePod, pod: str, argv: Sequence[str], **options: Any) -> ExecResult:
        return ExecResult(0, b"", "") if argv[0] == "touch" else cast("ExecResult", act(self, pod, argv, **options))

    return run
