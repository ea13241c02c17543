"""Every kind of source lists the same pictures and labels, and reads them."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convscope.errors import ImageError, OptionError
from convscope.images import read_image, write_image
from convscope.sources import Entry, PictureSource, open_source


def picture(number: int) -> torch.Tensor:
    return torch.full((3, 4, 5), number * 20 / 255)


def number_of(source: PictureSource, entry: Entry) -> int:
    return round(float(read_image(source.read(entry)).mean()) * 255 / 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """cat/0.png, cat/1.png, dog/2.png and 3.png at the top."""
    root = tmp_path / "photos"
    for number, place in enumerate(("cat", "cat", "dog", ".")):
        (root / place).mkdir(parents=True, exist_ok=True)
        write_image(picture(number), root / place / f"{number}.png")
    (root / "notes.md").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


def listed(source: PictureSource) -> list[tuple[str, str | None, int]]:
    return [(entry.path, entry.label, number_of(source, entry)) for entry in source.entries()]


def test_a_folder(folder: Path) -> None:
    source = open_source(folder)
    assert listed(source) == [
        ("3.png", None, 3),
        ("cat/0.png", "cat", 0),
        ("cat/1.png", "cat", 1),
        ("dog/2.png", "dog", 2),
    ]
    assert listed(open_source(source.given)) == listed(source)


def test_a_folder_that_links_to_itself_ends(folder: Path) -> None:
    (folder / "cat" / "again").symlink_to(folder)
    assert len(list(open_source(folder).entries())) == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "path,label\ncat/1.png,cat\n3.png,\ncat/1.png,cat\n"),
        ("l.csv", "label,image\ncat,cat/1.png\n,3.png\n"),
        ("l.csv", "cat/1.png,cat\n3.png\n"),
        ("l.tsv", "path\tlabel\ncat/1.png\tcat\n3.png\t\n"),
    ],
)
def test_a_list(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    assert listed(open_source(folder / name)) == [("cat/1.png", "cat", 1), ("3.png", None, 3)]


def test_a_list_without_labels_and_pictures_by_name(folder: Path) -> None:
    (folder / "l.txt").write_text("dog/2.png\n\ncat/0.png\n")
    assert listed(open_source(folder / "l.txt")) == [("dog/2.png", None, 2), ("cat/0.png", None, 0)]
    assert listed(open_source([folder / "dog" / "2.png", folder / "3.png"])) == [
        ("dog/2.png", None, 2),
        ("3.png", None, 3),
    ]


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    from convscope.images import to_pil

    to_pil(picture(number)).save(buffer, "PNG")
    return buffer.getvalue()


def test_shards_of_webdataset_and_of_folders(tmp_path: Path) -> None:
    first = shard(tmp_path / "a-0.tar", {"001.cls": b"7", "001.png": png(1), "002.png": png(2), "002.cls": b"8\n"})
    second = shard(
        tmp_path / "a-1.tar", {"./cat/x.png": png(3), "dog/x.png": png(4), "top.png": png(5), "t.json": b"{}"}
    )
    expected = [
        ("a-0.tar/001.png", "7", 1), ("a-0.tar/002.png", "8", 2),
        ("a-1.tar/cat/x.png", "cat", 3), ("a-1.tar/dog/x.png", "dog", 4), ("a-1.tar/top.png", None, 5),
    ]  # fmt: skip
    assert listed(open_source([first, second])) == expected
    assert listed(open_source(tmp_path)) == expected
    (tmp_path / "broken.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(ImageError, match=r"broken.tar cannot be read as a .tar"):
        list(open_source(tmp_path / "broken.tar").entries())


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = pa.array([{"bytes": png(n), "path": f"{n}.png"} for n in range(5)])
    labels = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    about = {b"huggingface": json.dumps({"info": {"features": labels}}).encode()}
    table = pa.table({"image": images, "label": pa.array([0, 1, None, 0, 1])}).replace_schema_metadata(about)
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data" / "train-0.parquet", row_group_size=2)
    source = open_source(tmp_path)
    found = listed(source)
    assert [row[1:] for row in found] == [("cat", 0), ("dog", 1), (None, 2), ("cat", 3), ("dog", 4)]
    assert found[4][0] == "data/train-0.parquet/00000004"
    assert listed(pickle.loads(pickle.dumps(source))) == found
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(ImageError, match="no column of pictures"):
        list(open_source(tmp_path / "t.parquet").entries())


class Ten:
    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        return np.full((4, 5, 3), 20 * place, np.uint8), place


def test_a_dataset_of_torch() -> None:
    source: Any = open_source(Ten())
    entries = list(source.entries())
    assert [number_of(source, entry) for entry in entries] == [0, 1, 2]
    assert [source.item(entry)[1] for entry in entries] == ["cat", "dog", "2"]


def test_what_is_no_source(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        open_source(tmp_path / "nothing")
    with pytest.raises(OptionError, match="not from float"):
        open_source(1.5)
    with pytest.raises(OptionError, match="several sources are"):
        open_source([folder, shard(tmp_path / "a.tar", {})])
