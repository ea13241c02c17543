"""What the page on networks of one's own says, done: its file, its command, its lines of Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import walk

from convscope.images import write_image
from convscope.zoo.torchvision_models import import_torchvision

PAGE = Path(__file__).parent / "own-network.md"


def test_the_file_the_command_and_the_lines_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = [block for _, block in walk.blocks(PAGE.read_text(encoding="utf-8"))]
    file = next(block for block in code if block.text.startswith("# mynet.py"))
    command = next(block for block in code if "mynet.py:trained" in block.text)
    lines = next(block for block in code if "from mynet import" in block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mynet.py").write_text(file.text, encoding="utf-8")
    Path("flowers.txt").write_text("\n".join(f"flower {number}" for number in range(12)), encoding="utf-8")
    torch.save(import_torchvision().models.resnet18(num_classes=12).state_dict(), "flowers.pt")
    write_image(torch.rand(3, 240, 260, generator=torch.Generator().manual_seed(0)), "rose.jpg")
    try:
        walk.run(command, {}, PAGE)
        walk.run(lines, {}, PAGE)
    finally:
        sys.modules.pop("mynet", None)
    assert Path("gradcam.png").stat().st_size
