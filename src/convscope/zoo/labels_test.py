"""Labels from lists and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from convscope.errors import NetworkError
from convscope.zoo.labels import read_labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "cat\ndog\n  great white shark \n"),
        ("l.txt", "\ufeffcat\r\ndog\r\ngreat white shark\r\n\r\n"),
        ("l.json", '["cat", "dog", "great white shark"]'),
        ("l.json", '{"0": "cat", "2": "great white shark", "1": "dog"}'),
        ("l.json", '{"0": ["n02", "cat"], "1": ["n01", "dog"], "2": ["n05", "great white shark"]}'),
        ("l.json", '{"dog": 1, "cat": 0, "great white shark": 2}'),
    ],
)
def test_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_labels(tmp_path / name) == ("cat", "dog", "great white shark")
    assert read_labels(str(tmp_path / name)) == ("cat", "dog", "great white shark")


def test_a_list() -> None:
    assert read_labels(["cat", "dog"]) == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", b"{", "does not hold labels"),
        ("l.json", b'"cat"', "neither a list nor a dict"),
        ("l.json", b"[1, 2]", "1 is not a name"),
        ("l.json", b'{"0": "cat", "2": "dog"}', "its indices are not 0 to 1"),
        ("l.json", b'{"cat": "dog"}', "its keys are not all indices"),
        ("l.txt", b"\xff\xfe\x00", "cannot be read"),
        ("l.csv", b"cat", "is no file of labels"),
    ],
)
def test_files_that_do_not_hold_labels(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NetworkError, match=message):
        read_labels(tmp_path / name)


def test_no_such_file() -> None:
    with pytest.raises(NetworkError, match=r"there is no file of labels 'nowhere.txt'"):
        read_labels("nowhere.txt")
