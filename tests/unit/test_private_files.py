"""A run's folder can be published: what it must not show is in `.private`, for this user alone."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from bench.errors import InputError, StoreError
from bench.scenario.loader import find_inputs, find_stored_inputs, load_scenario, read_stored_checksums
from bench.system.private_files import Content, PrivateFolder, hash_slowly, list_private_runs, read_index

VALUE = "pa55-of-the-shop"
SECRET = f"""\
# {VALUE}
apiVersion: v1
kind: Secret
metadata:
  name: shop
  annotations: {{kubectl.kubernetes.io/last-applied-configuration: '{{"stringData": {{"key": "{VALUE}"}}}}'}}
stringData: {{key: {VALUE}}}
"""
POLICY = '{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "a"}, "spec": {}}'


def write(folder: Path, files: Mapping[str, str]) -> str:
    """Write files, and a scenario that names the folder `policies` and the Locust file `load/readers`."""
    for name, text in {"policies/a.json": POLICY, "load/readers.py": "from locust import HttpUser\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    content = {
        "name": "mine",
        "title": "Mine",
        "load": {"locustfile": "load/readers"},
        "configurations": [{"name": "istio", "mesh": "istio", "manifests": ["policies"]}],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), "utf-8")
    return str(folder / "mine.yaml")


def keep(folder: Path, files: Mapping[str, str]) -> tuple[Path, Path, str]:
    """Return the folders of a run with these files, that which is published and the private one, and its scenario."""
    path = write(folder, files)
    run = folder / "results" / "20261123T031500Z-mine-7f3a"
    find_inputs(load_scenario(path), path).copy_to(run)
    return run, folder / "results" / ".private" / run.name, path


def read_all(folder: Path) -> str:
    """The names and contents of all files."""
    return "".join(f"{path}\n{path.read_text('utf-8')}" for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "files",
    [
        {"policies/shop.yaml": SECRET},
        {"policies/all.yaml": f"{POLICY}\n---\n{SECRET}"},
        {"policies/list.json": json.dumps({"kind": "List", "apiVersion": "v1", "items": [yaml.safe_load(SECRET)]})},
        {"policies/of.yaml": f"kind: SecretList\nitems: [{{metadata: {{name: a}}, data: {{b: {VALUE}}}}}]\n"},
        {"policies/env.yaml": f"kind: Pod\nspec: {{args: ['--password={VALUE}']}}\n"},
        {"load/users.csv": f"jane,{VALUE}\n"},
        {"load/login.py": f"HEADERS = {{'Authorization': 'Bearer {VALUE}'}}\n"},
    ],
    ids=["Secret", "beside others", "List", "SecretList", "argument", "data", "code"],
)
def test_published_folder_has_no_secret(tmp_path: Path, files: dict[str, str]) -> None:
    """It has names and hashes; a run, also one that is resumed, has every file as it was."""
    run, private, path = keep(tmp_path, files)
    assert VALUE not in read_all(run)
    stored = find_stored_inputs(load_scenario(path), run)
    ((name, text),) = files.items()
    found = stored.manifests["policies"] if name.startswith("policies") else stored.locustfile.parent
    assert (found / Path(name).name).read_text("utf-8") == text
    assert sorted(one.name for one in found.iterdir()) == sorted(one.name for one in (tmp_path / name).parent.iterdir())
    index = read_index(run)
    assert index is not None
    assert set(index.files) == {one.relative_to(private).as_posix() for one in private.rglob("*") if one.is_file()}


def test_private_files_are_of_this_user_alone(tmp_path: Path) -> None:
    """Folders have 0700, files 0600, and git ignores them."""
    _, private, _ = keep(tmp_path, {"load/users.csv": VALUE})
    (private.parent).chmod(0o755)
    keep(tmp_path / "again", {"load/users.csv": VALUE})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in private.rglob("*") if path.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in private.parent.rglob("*") if path.is_file()} == {0o600}
    assert (private.parent / ".gitignore").read_text("utf-8").endswith("\n*\n")


def test_run_without_private_files_makes_no_folder(tmp_path: Path) -> None:
    """A run of shipped files has neither a private folder nor an index."""
    run, private, _ = keep(tmp_path, {})
    assert not private.parent.exists()
    assert read_index(run) is None


@pytest.mark.parametrize("change", ["removed", "changed", "replaced by a link", "a pipe"])
def test_resume_without_private_file_is_one_message(tmp_path: Path, change: str) -> None:
    """It names the files and the folder; a report has the checksums all the same."""
    run, private, path = keep(tmp_path, {"load/users.csv": VALUE})
    before = [*read_stored_checksums(load_scenario(path), run)]
    file = private / "locust" / "users.csv"
    file.unlink()
    if change == "changed":
        file.write_text("another", "utf-8")
    if change == "replaced by a link":
        (tmp_path / "elsewhere").write_text(VALUE, "utf-8")
        file.symlink_to(tmp_path / "elsewhere")
    if change == "a pipe":
        os.mkfifo(file)
    with pytest.raises(InputError) as refused:
        find_stored_inputs(load_scenario(path), run)
    message = (
        f"cannot be resumed: private files that it needs are missing or changed in {private}: locust/users.csv; hint"
    )
    assert message in str(refused.value)
    assert [*read_stored_checksums(load_scenario(path), run)] == before
    assert ("locust/users.csv", hash_slowly(VALUE.encode())) in before


@pytest.mark.parametrize(
    "files",
    [
        {"../../x": {"scrypt": "0" * 64, "size_bytes": 1}},
        {"/etc/passwd": {"scrypt": "0" * 64, "size_bytes": 1}},
        {"a": {"scrypt": "x", "size_bytes": 1}},
        {"a": {"scrypt": "0" * 64, "size_bytes": -1}},
        [],
    ],
)
def test_index_from_elsewhere_is_checked(tmp_path: Path, files: object) -> None:
    """No path leads out of the folder, and what is no index is one error."""
    (tmp_path / "private.json").write_text(json.dumps({"run_id": "run", "files": files}), "utf-8")
    with pytest.raises(StoreError, match=r"private\.json: is damaged: "):
        read_index(tmp_path)
    (tmp_path / "private.json").write_text(json.dumps({"run_id": "../run", "files": {}}), "utf-8")
    with pytest.raises(StoreError, match=r"private\.json: is damaged: run_id"):
        read_index(tmp_path)


def test_link_in_place_of_the_private_folder_is_refused(tmp_path: Path) -> None:
    """Nothing is written where it leads to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".private").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is no folder of this user"):
        keep(tmp_path, {"load/users.csv": VALUE})
    assert [*(tmp_path / "elsewhere").iterdir()] == []
    assert list_private_runs(tmp_path / "results") == ()


def test_private_part_follows_the_trial(tmp_path: Path) -> None:
    """A trial that is renamed keeps its logs, and those of another attempt do not replace them."""
    run = tmp_path / "run"
    (run / "trials" / "01-a-1.partial").mkdir(parents=True)
    private = PrivateFolder.of_trial(run / "trials" / "01-a-1.partial", "run")
    private.keep([Content("load.log", b"first")])
    PrivateFolder.of_run(run, "run").rename("trials/01-a-1.partial", "trials/01-a-1")
    assert (tmp_path / ".private" / "run" / "trials" / "01-a-1" / "load.log").read_bytes() == b"first"
    assert read_index(private.public) is not None
    PrivateFolder.of_run(run, "run").rename("trials/none", "trials/other")


def test_hash_of_a_short_password_is_slow(tmp_path: Path) -> None:
    """A plain checksum in a published folder could be guessed; the hash of the same content is the same."""
    assert hash_slowly(b"1234") == hash_slowly(b"1234") != hash_slowly(b"1235")
    assert hash_slowly(b"1234") != hashlib.sha256(b"1234").hexdigest()
