"""A load's files come from its pod: a real shell runs here what it would run there."""

import hashlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.errors import BadAnswerError, ClusterError
from bench.files.folders import shipped
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.exec import Ran
from bench.k8s.timing import DEFAULT, Timing
from bench.load.generator import LoadOrder, LoadOutcome, RunningLoad
from bench.load.recorded import Start
from bench.results.samples import RAW_ROW
from bench.system.cancellation import Watch
from bench.targets.cluster.kubelet import KubeletUsage
from bench.targets.cluster.load.clock import Offset
from bench.targets.cluster.load.generator import PodGenerator, start_load
from bench.targets.cluster.load.transfer import LoadEnd, PodFiles, parse_parts

GONE = ClusterError("reading: nobody answers", status=0)


@pytest.fixture
def order() -> LoadOrder:
    return LoadOrder(
        address="productpage:9080",
        virtual_host="productpage:9080",
        locustfile=shipped("locustfiles") / "bookinfo.py",
        reviews="v3",
        users=20,
        think_time_s=0.1,
        rate_per_s=None,
        warmup_s=30,
        duration_s=120,
        seed=7,
    )


def container(name: str, *, restarts: int = 0, **state: Object) -> Object:
    return {"name": name, "restartCount": restarts, "state": state or {"running": {}}}


def load_pod(*containers: Object, early: Sequence[Object] = (), **status: Any) -> Object:
    made = {"containerStatuses": list(containers), "initContainerStatuses": list(early), **status}
    return {"metadata": {"name": "locust"}, "status": made}


@dataclass
class FakePod:
    """A load pod whose files are in a folder here: `exec` runs there what it would run in the pod. `cuts` are how many
    answers are cut short, `lies` how often files come over with a byte too many, `refusal` is what kubelets say."""

    files: Path
    cuts: int = 0
    lies: int = 0
    ran: list[str] = field(default_factory=list)
    account: str = '{"recorded": 3}'
    refusal: ClusterError = GONE
    timing: Timing = DEFAULT

    def exec(self, _pod: str, argv: Sequence[str], *, container: str, **_: Any) -> Ran:
        self.ran.append(f"{container}: {argv[-1] if container == 'locust' else argv[3]}")
        if container == "locust":
            (self.files / "generator.json").write_text(self.account, "utf-8")
            return Ran(0, b"", "")
        script = argv[2].replace("cd /load", f"cd {self.files}")
        child = subprocess.run([*argv[:2], script, *argv[3:]], capture_output=True, check=False)
        assert child.returncode == 0, child.stderr
        return Ran(0, self._spoilt(child.stdout, argv[3]), "")

    def _spoilt(self, output: bytes, what: str) -> bytes:
        if what == "fetch" and output and self.cuts:
            self.cuts -= 1
            return output[:-1]
        if what == "fetch" and self.lies and b"samples.bin 99\n" in output:
            self.lies -= 1
            return output.replace(b"samples.bin 99\n", b"samples.bin 100\nX")
        return output

    def get(self, _: Ref) -> Object:
        return load_pod(container("locust"), container("keeper"))

    def list(self, *_: str, **__: str) -> tuple[Object, ...]:
        return (load_pod(container("locust"), container("keeper")),)

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


def same(pod: FakePod, copies: PodFiles) -> bool:
    """Whether every file of the pod is here, alike."""
    checksums = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (pod.files, copies.folder)
    ]
    return checksums[0] == checksums[1]


def test_only_what_is_new_comes_over(pod: FakePod, copies: PodFiles) -> None:
    """A second fetch brings what was appended meanwhile and nothing twice."""
    assert copies.fetch() == sum(path.stat().st_size for path in pod.files.iterdir())
    assert copies.fetch() == 0
    with (pod.files / "samples.bin").open("ab") as file:
        file.write(bytes(range(33)))
    assert copies.fetch() == 33
    assert same(pod, copies)
    assert copies.differences() == ""


def test_an_answer_that_is_cut_adds_nothing(pod: FakePod, copies: PodFiles) -> None:
    """It is an error, no file here has grown, and the next fetch brings everything."""
    pod.cuts = 1
    with pytest.raises(ClusterError, match="the answer is cut"):
        copies.fetch()
    assert not list(copies.folder.iterdir())
    copies.fetch()
    assert same(pod, copies)


def test_names_come_after_the_rows_that_use_them(pod: FakePod, copies: PodFiles) -> None:
    """Whatever is recorded during a fetch, no row here lacks its name."""
    copies.fetch()
    (call,) = pod.ran
    assert call == "keeper: fetch"
    parts = parse_parts(b"samples.bin 1\nXnames.txt 2\nYZ", room={"samples.bin": 9, "names.txt": 9})
    order = [part.name for part in parts]
    assert order == ["samples.bin", "names.txt"]
    assert copies._names() == ("started.json", "samples.bin", "names.txt", "generator.json")


def test_the_end_brings_everything_and_verifies_it(pod: FakePod, copies: PodFiles) -> None:
    """Locust is told by SIGTERM, its account awaited, and every file compared."""
    assert LoadEnd(copies, Watch()).in_full(timeout_s=5) == ""
    assert pod.ran[0] == "locust: kill -TERM 1"
    assert pod.ran[-1] == "keeper: verify"
    assert same(pod, copies)


def test_a_file_that_came_over_wrong_is_fetched_again(pod: FakePod, copies: PodFiles) -> None:
    """One wrong byte is noticed, and mended by the pod's own file."""
    pod.lies = 1
    assert LoadEnd(copies, Watch()).in_full(timeout_s=5) == ""
    assert pod.lies == 0
    assert same(pod, copies)


def test_files_that_stay_wrong_are_told(pod: FakePod, copies: PodFiles) -> None:
    """Which file it is, and how much of it is here."""
    pod.lies = 2
    told = LoadEnd(copies, Watch()).in_full(timeout_s=5)
    assert told == "not all samples came over as the pod has them: samples.bin (3 rows here)"


def test_a_pod_that_is_gone_keeps_nobody_waiting(
    pod: FakePod, copies: PodFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is here stays, and up to which second is told."""
    copies.fetch()
    monkeypatch.setattr(FakePod, "exec", _refuse)
    monkeypatch.setattr(FakePod, "get", lambda *_: None)
    end, began = LoadEnd(copies, Watch()), time.monotonic()
    told = end.in_full(timeout_s=60)
    assert told == "samples may be missing after second 3: running: there is no such pod"
    assert end.exit_code() is None
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("status", [403, 404, 503])
def test_figures_that_cannot_be_read_are_no_reason_to_end_a_load(pod: FakePod, copies: PodFiles, status: int) -> None:
    """Neither trouble nor an outage: the load is watched on, its samples come over, and the reader is told."""
    pod.refusal = ClusterError("reading the kubelet's summary: no", status=status)
    meter = KubeletUsage(copies.cluster, ("n1",), {})
    generator = PodGenerator(copies, Start(0, 0.0), Offset(0, 0, 0.0), meter, {"locust"}, Watch())
    generator.tick()
    assert (generator.trouble(), generator.outage.since_s) == ("", None)
    assert same(pod, copies)
    told = "the kubelet of node n1 gave no CPU and memory 1 time: reading the kubelet's summary: no"
    assert generator.remarks() == (told,)


def _refuse(*_: object, **__: object) -> Ran:
    raise ClusterError("running: there is no such pod", status=404)


@dataclass
class HostilePod(FakePod):
    """A load pod that answers `fetch` with anything."""

    answer: bytes = b""

    def exec(self, _pod: str, argv: Sequence[str], *, container: str, **options: Any) -> Ran:
        if container == "keeper" and argv[3:4] == ["fetch"]:
            assert len(self.answer) <= options["most_bytes"]
            return Ran(0, self.answer, "")
        return super().exec(_pod, argv, container=container, **options)


def hostile(pod: FakePod, copies: PodFiles, answer: bytes) -> PodFiles:
    return replace(copies, cluster=cast("Cluster", HostilePod(pod.files, answer=answer)))


@pytest.mark.parametrize("name", ["../outside", "{root}/outside", "samples.bin/../../outside", "here", "."])
def test_a_hostile_pod_writes_no_file_of_its_own(pod: FakePod, copies: PodFiles, tmp_path: Path, name: str) -> None:
    """Not by a path that leads out, and not a part of the answer before it: all of it is added, or nothing."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    answer = f"samples.bin 1\nX{name.format(root=tmp_path)} 3\nssh".encode()
    with pytest.raises(BadAnswerError, match="was not asked for"):
        hostile(pod, copies, answer).fetch()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_pod_that_always_has_more_comes_to_an_end(pod: FakePod, copies: PodFiles) -> None:
    """At the limit for one load, whatever it announces."""
    chunk = 8 * 1024 * 1024
    endless = replace(hostile(pod, copies, b"samples.bin %d\n" % chunk + bytes(chunk)), most_bytes=3 * chunk)
    with pytest.raises(
        BadAnswerError, match=r"larger than the 25165824 bytes of one load; hint: make the load shorter"
    ):
        endless.fetch_all()
    assert (copies.folder / "samples.bin").stat().st_size == 3 * chunk


class NoMeter:
    """Nothing is measured."""

    def tick(self) -> None:
        """Nothing."""

    def read(self) -> None:
        """Nothing."""

    def rows(self, _: Start) -> list[Any]:
        return []

    def remarks(self) -> tuple[str, ...]:
        return ()


def loaded(copies: PodFiles, order: LoadOrder) -> tuple[list[LoadOutcome], RunningLoad]:
    """A load of this pod whose window has passed."""
    start = Start(time.perf_counter_ns() - 4_000_000_000, 0.0)
    generator = PodGenerator(copies, start, Offset(0, 0, 0.0), NoMeter(), {"locust"}, Watch())
    load = RunningLoad.on(generator, replace(order, warmup_s=1, duration_s=2), copies.folder, wall_s=time.time() - 4)
    return [], load


def _odd_name(pod: FakePod) -> None:
    rows = np.fromfile(pod.files / "samples.bin", RAW_ROW)
    rows["name"][1] = 9
    rows.tofile(pod.files / "samples.bin")


def _odd_account(pod: FakePod) -> None:
    pod.account = '{"recorded": ["a"], "problem": 3}'


def _odd_names(pod: FakePod) -> None:
    (pod.files / "names.txt").write_bytes(b"\xff\n")


@pytest.mark.parametrize(("change", "kept", "message"), [
    (_odd_name, 2, "samples.bin: 1 of 3 rows make no sense, the first is row 2"),
    (_odd_account, 3, "generator.json makes no sense: problem is not text"),
    (_odd_names, 3, "names.txt: it is not UTF-8"),
])  # fmt: skip
def test_files_that_make_no_sense_end_the_load_and_keep_its_samples(
    pod: FakePod, copies: PodFiles, order: LoadOrder, change: Any, kept: int, message: str
) -> None:
    """One error with exit code 4 that names the file, and all other samples are saved before."""
    change(pod)
    outcomes, load = loaded(copies, order)
    with pytest.raises(BadAnswerError, match="what the load pod recorded makes no sense") as caught:
        load.run(watch=Watch(), show=lambda _: None, kept=outcomes.append)
    assert message in str(caught.value)
    assert caught.value.exit_code == 4
    (outcome,) = outcomes
    assert len(outcome.samples) == kept
    assert outcome.generator.problem.startswith("cut short: ")
    assert (copies.folder / "samples.parquet").exists()


def test_a_pod_that_turns_hostile_ends_the_load_and_loses_nothing(
    pod: FakePod, copies: PodFiles, order: LoadOrder
) -> None:
    """What had come over before stays, and nothing else is asked of the pod for long."""
    copies.fetch()
    outcomes, load = loaded(hostile(pod, copies, b"../x 1\nX"), order)
    with pytest.raises(BadAnswerError, match="was not asked for"):
        load.run(watch=Watch(), show=lambda _: None, kept=outcomes.append)
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
def test_a_start_that_makes_no_sense_is_one_error(
    pod: FakePod, copies: PodFiles, order: LoadOrder, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before there is anything to lose."""
    (pod.files / "started.json").write_text(content, "utf-8")
    monkeypatch.setattr("bench.targets.cluster.load.generator.read_offset", lambda *_: Offset(0, 0, 0.0))
    monkeypatch.setattr(FakePod, "exec", _without_touch(FakePod.exec))
    with pytest.raises(BadAnswerError, match=r"makes no sense: started\.json"):
        start_load(copies.cluster, order, copies.folder, namespace="here", meter=NoMeter(), watch=Watch())


def _without_touch(act: Any) -> Any:
    def run(self: FakePod, pod: str, argv: Sequence[str], **options: Any) -> Ran:
        return Ran(0, b"", "") if argv[0] == "touch" else cast("Ran", act(self, pod, argv, **options))

    return run
