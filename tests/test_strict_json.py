"""JSON that two programs could read differently, or that exhausts one, is refused in every file that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.strict_json import MAX_BYTES, MAX_DEPTH, parse_json, read_json, read_object

SOUND: dict[str, Any] = {
    "object": {"a": [1, -2.5, 1e-300, True, None, "zéro \U0001f600"], "b": {"a": {}}},
    "list": [[], {}],
    "text": "NaN",
    "largest": 10**39,
    "null": None,
}
WRONG: dict[str, tuple[str | bytes, str]] = {
    "equal keys": ('{"a": 1, "a": 1}', "got the key 'a' twice in one object, expected each key once"),
    "equal keys, escaped": ('{"a": 1, "\\u0061": 2}', "got the key 'a' twice"),
    "equal keys inside": ('{"x": [0, {"b": 1, "b": 2}]}', "x.1: got the key 'b' twice"),
    "NaN": ('{"eps": NaN}', "eps: got NaN, expected a finite number"),
    "infinity": ('{"a": {"b": [1, -Infinity]}}', "a.b.1: got -Infinity, expected a finite number"),
    "overflow": ("[1e999]", "0: got '1e999', expected a finite number"),
    "long integer": (f'{{"n": {"9" * 5000}}}', "n: got a number of 5,000 digits, expected at most 40"),
    "long float": (f"[{'9' * 5000}.0]", "0: got '99999"),
    "deep list": ("[" * 100_000, "got lists or objects nested too deeply, expected at most 100 levels"),
    "deep and closed": ("[" * 101 + "]" * 101, "nested too deeply"),
    "deep object": ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    "mark": (b"\xef\xbb\xbf{}", "got a byte-order mark, expected UTF-8 without one"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "got UTF-16 or binary data, expected UTF-8"),
    "UTF-16 without mark": ('{"a": 1}'.encode("utf-16-le"), "got UTF-16 or binary data"),
    "UTF-32": ("{}".encode("utf-32"), "got UTF-16 or binary data"),
    "Latin-1": ('{"é": 1}'.encode("latin-1"), "got byte 0xe9 at offset 2, expected UTF-8"),
    "surrogate": ('{"a": ["\\ud800"]}', "a.0: got half of a surrogate pair in '\\ud800'"),
    "surrogate key": ('{"\\udfff": 1}', "got half of a surrogate pair"),
    "empty": (b"", "it is empty (0 bytes)"),
    "blank": (b" \n", "it is empty (2 bytes)"),
    "two values": ("{} {}", "Extra data"),
    "comment": ('{"a": 1} // note', "Extra data"),
}


@pytest.mark.parametrize("value", SOUND.values(), ids=SOUND)
def test_sound_text_is_parsed_as_python_does(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert read_json(path) == value
    assert parse_json(json.dumps(value, ensure_ascii=False), "text") == value


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_refused_with_file_finding_and_expectation(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "some config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError) as caught:
        read_json(path, CheckpointError, advice="copy it again")
    message = str(caught.value)
    assert f"{path} is not a JSON file" in message and told in message and message.endswith("; copy it again")
    assert len(message) < 400


def test_the_deepest_that_is_read() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "text") is not None


@pytest.mark.parametrize("text", ["", "{", b"\x89PNG", b"\xff\xfe", '{"a": 1} // note', "[" * 200])
def test_what_is_no_json_is_called_so_whatever_was_expected(text: str | bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "x.json", what="a plan", advice="copy it again")
    message = str(caught.value)
    assert message.startswith("x.json is not a JSON file: ")
    assert message.endswith("; expected a plan; copy it again")


def test_every_wrong_value_is_listed() -> None:
    with pytest.raises(ConfigError, match=r"a: got NaN[\s\S]*b: got Infinity") as caught:
        parse_json('{"a": NaN, "b": Infinity}', "x.json", what="a plan")
    assert str(caught.value).startswith("x.json is not a plan:\n")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[]", "a list"), ("null", "null"), ('"a"', "text"), ("3", "a number"), ("true", "a boolean")],
)
def test_an_object_is_expected(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=f"got {kind}, expected a JSON object"):
        read_object(tmp_path / "a.json")


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match=f"got more than {MAX_BYTES:,} bytes"):
        read_json(Path("/dev/zero"))
