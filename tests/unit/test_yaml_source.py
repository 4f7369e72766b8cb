"""YAML and JSON of users: guarded, and with a line for every field."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import InputError
from bench.files.yaml_source import (
    DEPTH_LIMIT,
    KUBECTL,
    SIZE_LIMIT,
    format_path,
    format_suggestion,
    parse_documents,
    read_documents,
)


def problems(text: str) -> list[str]:
    """The errors of a text, `file:line: path: message` each."""
    with pytest.raises(InputError) as caught:
        parse_documents(text, file="a.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_field_has_its_line() -> None:
    """A field's line is that of its key, a list item's that of the item, a missing field's its parent's."""
    document = parse_documents("a: 1\nb:\n  - x\n  - y: 2\n    z:\n      deep: 3\n", file="a.yaml")[0]
    assert document.value == {"a": 1, "b": ["x", {"y": 2, "z": {"deep": 3}}]}
    assert document.line_of(("a",)) == 1
    assert document.line_of(("b",)) == 2
    assert document.line_of(("b", 1)) == 4
    assert document.line_of(("b", 1, "z", "deep")) == 6
    assert document.line_of(("b", 1, "missing", "deeper")) == 4
    assert document.line_of(()) == 1


def test_ignores_parts_of_a_path_that_are_no_fields() -> None:
    """The tag of a union inside a path does not hide the field behind it."""
    document = parse_documents("a:\n  b: 1\n", file="a.yaml")[0]
    assert document.line_of(("a", "SomeModel", "b")) == 2


def test_documents_have_lines_of_the_file() -> None:
    """The second document of a file counts its lines from the start of the file."""
    first, second = parse_documents("a: 1\n---\nb: 2\n", file="a.yaml")
    assert (first.line_of(("a",)), second.line_of(("b",))) == (1, 3)


def test_empty_file_has_no_document(tmp_path: Path) -> None:
    """A file with only comments has no document, and no error."""
    (tmp_path / "a.yaml").write_text("# nothing\n", "utf-8")
    assert read_documents(tmp_path / "a.yaml") == ()


def test_dates_stay_text() -> None:
    """A value that YAML would turn into a date stays unchanged."""
    assert parse_documents("day: 2026-11-23\n", file="a.yaml")[0].value == {"day": "2026-11-23"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: a: duplicate key, first on line 1"),
        ("x:\n  a: 1\n  a: 1\n", "a.yaml:3: x.a: duplicate key, first on line 2"),
        ("a: &name 1\n", "a.yaml:1: the anchor &name is not allowed here; write the value out each time"),
        ("a: 1\nb: *name\n", "a.yaml:2: the alias *name is not allowed here; write the value out"),
        ("a: 1\n<<: {b: 2}\n", "a.yaml:2: the merge key << is not allowed here; write the fields out"),
        ("a: .nan\n", "a.yaml:1: a: .nan is not a finite number"),
        ("a: [1, -.inf]\n", "a.yaml:1: a[1]: -.inf is not a finite number"),
        ("a: 1.0e+999\n", "a.yaml:1: a: 1.0e+999 is not a finite number"),
        ("1.5: a\n", "a.yaml:1: a key must be text; put it in quotes"),
        ("010: a\n", "a.yaml:1: a key must be text; put it in quotes"),
        ("? [a]\n: b\n", "a.yaml:1: a key must be text; put it in quotes"),
        ("a: " + 6000 * "9" + "\n", "a.yaml:1: a: 99999999999999999999 is not a valid number"),
    ],
)
def test_refuses_ambiguous_yaml(text: str, expected: str) -> None:
    """Each guard reports the line, the field and the reason."""
    assert problems(text) == [expected]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!!str 1", "! 1", "!mine {a: 1}"])
def test_refuses_tags(tag: str) -> None:
    """No tag has an effect, whatever its name."""
    assert "is not allowed here; write plain YAML" in problems(f"a: 1\nb: {tag}\n")[0]


def test_syntax_error_has_line_and_column() -> None:
    """A file that is no YAML is refused at the place of the error."""
    assert problems("a: 1\nb: [1, 2\nc: }\n")[0].startswith("a.yaml:3: not YAML, at column ")


def test_reports_all_problems_at_once() -> None:
    """A file with three errors gets three messages."""
    assert len(problems("a: 1\na: 2\nb: .nan\n3.5: 4\n")) == 3


@pytest.mark.parametrize(
    "bomb",
    [
        'a: &a ["lol","lol"]\n'
        + "".join(f"{c}: &{c} [*{p},*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "[" * 200_000,
        "{a: " * 50_000,
        "- " * 100_000,
    ],
    ids=["aliases", "lists", "mappings", "sequences"],
)
def test_refuses_bombs_at_once(bomb: str) -> None:
    """A text that would grow or recurse is refused in less than a second."""
    start = time.monotonic()
    assert len(problems(bomb)) == 1
    assert time.monotonic() - start < 1


def test_refuses_large_files(tmp_path: Path) -> None:
    """More than 256 KiB is refused, exactly that much is not."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * SIZE_LIMIT)
    assert read_documents(path) == ()
    path.write_bytes(b"#" * (SIZE_LIMIT + 1))
    with pytest.raises(InputError, match=r"is larger than 256 KiB"):
        read_documents(path)


def test_refuses_what_is_no_text_file(tmp_path: Path) -> None:
    """A missing file, a folder, and a file that is not UTF-8 are reported, without a traceback."""
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    for path, expected in (
        (tmp_path / "none.yaml", "none.yaml: no such file"),
        (tmp_path, ": is a directory"),
        (tmp_path / "latin.yaml", "latin.yaml:2: is not UTF-8 text"),
    ):
        with pytest.raises(InputError) as caught:
            read_documents(path)
        assert str(caught.value).endswith(expected)


def test_paths_and_suggestions_are_readable() -> None:
    """A path has the syntax of code; a suggestion has similar names, or all of them."""
    assert format_path(("rules", 0, "to", 1, "operation")) == "rules[0].to[1].operation"
    assert format_suggestion("usres", ["users", "rate"]) == "; did you mean users?"
    assert format_suggestion("qqq", ["users", "rate"]) == "; known: rate, users"
    assert format_suggestion("qqq", []) == ""


KEYS = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=5)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_data_round_trip(value: object) -> None:
    """Whatever plain data PyYAML writes comes back equal, and every part of it has a line."""
    text = yaml.safe_dump({"value": value})
    document = parse_documents(text, file="a.yaml")[0]
    assert document.value == {"value": value}
    assert all(1 <= line <= text.count("\n") for line in document.lines.values())


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Every text gives documents or an InputError."""
    with suppress(InputError):
        parse_documents(text, file="a.yaml")


@pytest.mark.parametrize("text", ["30:00", "010", "0x10", "1_000", "0b1"])
def test_only_plain_decimal_integers_are_numbers(tmp_path: Path, text: str) -> None:
    """A number that YAML 1.1 would read with another value is refused with its line."""
    path = tmp_path / "numbers.yaml"
    path.write_text(f"name: a\nusers: {text}\n", "utf-8")
    with pytest.raises(InputError, match=r"numbers\.yaml:2: users: .* is not a plain decimal number"):
        read_documents(path)


def test_refuses_too_many_values_quickly(tmp_path: Path) -> None:
    """A file below the size limit with too many values ends at the limit of values."""
    path = tmp_path / "flood.yaml"
    path.write_text("[" + "1," * 120_000 + "1]", "utf-8")
    with pytest.raises(InputError, match="more than 10000 values"):
        read_documents(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_json_has_the_values_of_a_json_reader(
    tmp_path_factory: pytest.TempPathFactory, value: object, indent: int | str | None, ascii_only: bool
) -> None:
    """Also where JSON differs from YAML: tabs, escapes, `1e5`, keys such as `<<` and `yes`."""
    path = tmp_path_factory.getbasetemp() / "a.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), "utf-8")
    assert [document.value for document in read_documents(path)] == [value]


def test_json_fields_have_their_lines(tmp_path: Path) -> None:
    """As in YAML, also behind tabs, in a file from a system that writes a byte order mark and CRLF."""
    path = tmp_path / "A.JSON"
    path.write_bytes(b'\xef\xbb\xbf{\r\n\t"kind": "a\\/b",\r\n\t"spec": [\r\n\t\t{"x": 1}\r\n\t]\r\n}\r\n')
    (document,) = read_documents(path)
    assert document.value == {"kind": "a/b", "spec": [{"x": 1}]}
    assert [document.line_of(loc) for loc in ((), ("kind",), ("spec",), ("spec", 0, "x"))] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 1}", ":1: not JSON, at column 2: "),
        ('{\n"a": one}', ":2: not JSON, at column 6: "),
        ('{"a": NaN}', ": not JSON: NaN is not a number in JSON"),
        ('{"a": 1e999}', ":1: a: 1e999 is not a finite number"),
        ('{"a": 1,\n"a": 2}', ":2: a: duplicate key, first on line 1"),
        ('{"a": 1} {"b": 2}', ":1: not JSON, at column 10: Extra data"),
        ("[" * 99_999, f": is nested more than {DEPTH_LIMIT} deep"),
        ("[" * 40 + "]" * 40, f":1: is nested more than {DEPTH_LIMIT} deep"),
        ("kind: Service", ":1: not JSON, at column 1: "),
    ],
)
def test_refuses_invalid_json_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """A file with a JSON suffix is read as JSON, with the same guards as YAML."""
    path = tmp_path / "a.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        read_documents(path)
    assert str(caught.value).startswith(f"{path}{expected}")


def read_manifest(text: str, *, is_json: bool = False) -> list[object]:
    """The values of a text as a manifest."""
    return [one.value for one in parse_documents(text, file="a.yaml", dialect=KUBECTL, is_json=is_json)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0644", 420), ("0x1F", 31), ("-0b11", -3), ("0o17", 15), ("1_000", 1000), ("089", 89), ("+1", 1)),
        *(("1.0", 1), ("1e3", 1000), (".5", 0.5), ("1.", 1), ("1e400", "1e400"), ("30:00", "30:00"), ("0o8", "0o8")),
        *(("y", True), ("Off", False), ("~", None), ("", None), ("2026-11-23", "2026-11-23"), ("=", "=")),
        *(('"y"', "y"), ("!!str 1", "1"), ('!!int "3"', 3), ("! 1", "1"), ("-x", "-x"), ("_1", "_1"), ("<<", "<<")),
    ],
)
def test_manifest_has_the_values_of_kubectl(text: str, value: object) -> None:
    """A plain scalar is what kubectl sends; tests/local asks kubectl for the same values."""
    assert read_manifest(f"a: {text}\n") == [{"a": value}]


def test_numbers_beyond_64_bits_are_what_kubectl_makes_of_them() -> None:
    """A fraction, or text where there is none; never a number that cannot be written again."""
    long, based = "9" * 5000, f"0x{'f' * 5000}"
    assert read_manifest(f"[{2**64 - 1}, {2**70}, {long}, {based}]") == [[2**64 - 1, float(2**70), long, based]]


def test_manifest_keys_are_text() -> None:
    """A key that YAML reads as a number or a boolean is the text that kubectl sends."""
    assert read_manifest("{9080: a, yes: b, 1.5: c}") == [{"9080": "a", "true": "b", "1.5": "c"}]


def test_aliases_and_merges_are_copies_with_lines() -> None:
    """An alias is a copy with the lines of its anchor; a field that is given wins over a merged one."""
    text = "base: &base\n  x: 1\n  w: [2]\na: *base\nb:\n  <<: *base\n  x: 3\nc:\n  <<: [*base, {z: 4}]\n"
    (document,) = parse_documents(text, file="a.yaml", dialect=KUBECTL)
    value = document.value
    assert (value["a"], value["b"]) == ({"x": 1, "w": [2]}, {"x": 3, "w": [2]})
    assert value["c"] == {"x": 1, "w": [2], "z": 4}
    assert value["a"]["w"] is not value["base"]["w"]
    places = [("a",), ("a", "x"), ("b", "x"), ("b", "w"), ("b", "w", 0), ("c", "z")]
    assert [document.line_of(loc) for loc in places] == [4, 2, 7, 3, 3, 9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: *b\n", "a.yaml:1: the alias *b has no anchor that ends before it"),
        ("a: &a [*a]\n", "a.yaml:1: the alias *a has no anchor that ends before it"),
        ("a: &a 1\n---\nb: *a\n", "a.yaml:3: the alias *a has no anchor that ends before it"),
        ("a: 1\nb:\n  <<: [1]\n", "a.yaml:3: b.<<: only mappings can be merged"),
        ("a: !mine 1\n", "a.yaml:1: the tag !mine is not allowed here; write plain YAML"),
        ("a: !!binary aGVsbG8=\n", "a.yaml:1: the tag tag:yaml.org,2002:binary is not allowed here; write plain YAML"),
        ("~: 1\n", "a.yaml:1: a key must be text; put it in quotes"),
        ("? [a]\n: 1\n", "a.yaml:1: a key must be text; put it in quotes"),
        ("a: &a [1]\n*a : 1\n", "a.yaml:2: a key must be text; put it in quotes"),
        ("a: 1\na: 2\n---\nb: .nan\n", "a.yaml:2: a: duplicate key, first on line 1"),
    ],
)
def test_refuses_what_a_manifest_cannot_mean(text: str, expected: str) -> None:
    """Each has its line; several documents have their problems together."""
    with pytest.raises(InputError) as caught:
        read_manifest(text)
    assert str(caught.value.problems[0]) == expected


def test_aliases_that_grow_are_refused_at_once() -> None:
    """Each alias counts with all its values, so that a billion laughs ends at the limit."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(InputError, match="more than 1000000 values in one file"):
        read_manifest("\n".join(lines))


def test_manifest_may_be_json_under_any_name() -> None:
    """Text that begins as JSON and is JSON is read as such, also several values; other text is YAML."""
    several = '{"a": 1e3, "b": "<<", "no": "\\/"}\n{"c": 1.0}\n'
    for is_json in (True, False):
        assert read_manifest(several, is_json=is_json) == [{"a": 1000, "b": "<<", "no": "/"}, {"c": 1}]
    assert read_manifest("{a: 1}\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]
    assert read_manifest("a: 1\n", is_json=True) == [{"a": 1}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_manifest_from_other_systems(tmp_path: Path, encoding: str) -> None:
    """CRLF, a byte order mark and UTF-16, as a redirection of PowerShell writes, change neither values nor lines."""
    path = tmp_path / "a.yaml"
    path.write_bytes("a: é\r\n---\r\n# nothing\r\n---\r\nb:\r\n  - |\r\n    x\r\n".encode(encoding))
    first, empty, last = read_documents(path, KUBECTL)
    assert (first.value, empty.value, last.value) == ({"a": "é"}, None, {"b": ["x\n"]})
    assert (first.line_of(("a",)), last.line_of(("b", 0))) == (1, 6)


@given(JSON)
def test_manifest_in_json_is_that_of_yaml(value: object) -> None:
    """The same data in both forms has the same values, as a number without a fraction is whole in both."""
    text = json.dumps({"value": value})
    (from_json,) = read_manifest(text, is_json=True)
    assert from_json == json.loads(text)


@given(st.text(max_size=200) | st.text("&*<-:,[]{}ab!|\n \"'0x", max_size=60))
def test_any_manifest_is_read_or_refused(text: str) -> None:
    """Every text gives documents that can be sent as JSON, or an InputError."""
    for is_json in (False, True):
        with suppress(InputError):
            documents = parse_documents(text, file="a.yaml", dialect=KUBECTL, is_json=is_json)
            assert all(len(document.lines) > 0 and json.dumps(document.value) for document in documents)
