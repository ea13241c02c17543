"""What is kept on disk stays within its bound."""

from __future__ import annotations

import os
from pathlib import Path

from convscope.explorer import cache


def filled(folder: Path) -> list[Path]:
    """Three results of 100 bytes and two pictures of 50, the oldest first."""
    results = [folder / "results" / name for name in ("a", "b", "c")]
    pictures = [folder / "pictures" / "net" / f"{name}.png" for name in ("d", "e")]
    for number, entry in enumerate([*results, *pictures]):
        file = entry / "result.html" if entry in results else entry
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * (100 if entry in results else 50))
        os.utime(entry, (number, number))
    return [*results, *pictures]


def there(entries: list[Path]) -> str:
    return "".join(entry.stem for entry in entries if entry.exists())


def test_what_was_not_asked_for_the_longest_goes_first(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    assert cache.trim(tmp_path, 400) == 0
    cache.used(entries[0])
    assert cache.trim(tmp_path, 250) == 200
    assert there(entries) == "ade"


def test_pictures_in_use_and_the_latest_stay_whatever_their_size(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    assert cache.trim(tmp_path, 0, spared={entries[3]}) == 300
    assert there(entries) == "de"


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert cache.trim(tmp_path / "absent", 10) == 0
