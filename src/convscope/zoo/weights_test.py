"""Weights from files: what is read, what is refused, and that nothing runs."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from convscope.errors import NetworkError
from convscope.zoo.blueprint import Blueprint
from convscope.zoo.weights import Weights, build_with, classes_of, load_into, read_weights, unprefixed, unwrap


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"0.weight": torch.randn(3, 2, generator=generator), "0.bias": torch.randn(3, generator=generator)}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth", "bin", "ckpt", "tar"])
def test_round_trip(tmp_path: Path, state: dict[str, torch.Tensor], kind: str, dtype: torch.dtype) -> None:
    path = tmp_path / f"weights.{kind}"
    stored = {key: value.to(dtype) for key, value in state.items()}
    save_file(stored, path) if kind == "safetensors" else torch.save(stored, path)
    read, module = read_weights(path), net()
    load_into(module, read, "net")
    assert module[0].weight.dtype == torch.float32
    assert_close(module[0].weight, stored["0.weight"].float(), rtol=0, atol=0)
    assert_close(module[0].bias, stored["0.bias"].float(), rtol=0, atol=0)


def test_the_digest_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "empty.pt"
    torch.save({"a": torch.zeros(1)}, path)
    import hashlib

    assert read_weights(path).source == f"empty.pt sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}…"


def test_a_safetensors_file_by_another_name(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "weights.bin")
    assert_close(read_weights(tmp_path / "weights.bin").state, state)


def test_metadata_describe_the_network(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    metadata = {"labels": '["a", "b", "c"]', "mean": "[0.5]", "std": "0.25", "input_size": "[64, 96]", "crop": "0.9"}
    save_file(state, tmp_path / "w.safetensors", {**metadata, "format": "pt"})
    found = read_weights(tmp_path / "w.safetensors").description
    assert (found.labels, found.mean, found.std) == (("a", "b", "c"), (0.5,), (0.25,))
    assert (found.input_size, found.crop) == ((64, 96), 0.9)


def test_metadata_that_are_not_what_they_should_be(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors", {"labels": "cat, dog"})
    with pytest.raises(NetworkError, match=r"the metadata 'labels' of w.safetensors is not what it should be"):
        read_weights(tmp_path / "w.safetensors")


class Hostile:
    """Unpickled by plain torch.load, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, write: Any) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pt"
    write({"0.weight": torch.zeros(3, 2), "payload": Hostile(mark)}, path)
    with pytest.raises(NetworkError, match=r"hostile.pt is a pickle that holds more than tensors.*runs no code"):
        read_weights(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists()  # it would have


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "module.pt")
    with pytest.raises(NetworkError, match=r"holds more than tensors.*torch.save\(model.state_dict\(\), FILE\)"):
        read_weights(tmp_path / "module.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(net()), tmp_path / "script.pt")
    with pytest.raises(NetworkError, match=r"script.pt is a TorchScript archive"):
        read_weights(tmp_path / "script.pt")


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"weights", b"PK\x03\x04junk", b"\x00" * 64, b"<html></html>"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_broken_files(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NetworkError, match=rf"^{name} is "):
        read_weights(tmp_path / name)


def test_a_file_cut_short(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    for name, write in (("w.safetensors", save_file), ("w.pt", torch.save)):
        write(state, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(NetworkError, match=name):
            read_weights(tmp_path / name)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"there is no file of weights 'imagenet'; give a .*'default' or 'random'"):
        read_weights("imagenet")
    with pytest.raises(NetworkError, match="there is no file of weights"):
        read_weights(tmp_path)
    with pytest.raises(NetworkError, match="not a NoneType"):
        read_weights(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "module"])
def test_wrappers_come_off(tmp_path: Path, state: dict[str, torch.Tensor], key: str) -> None:
    content = {key: state, "epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(content, tmp_path / "checkpoint.pth")
    assert_close(read_weights(tmp_path / "checkpoint.pth").state, state)


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(NetworkError, match=r"c.pt holds no state dict"):
        read_weights(tmp_path / "c.pt")
    with pytest.raises(NetworkError, match="holds no state dict"):
        unwrap([torch.zeros(1)], "a list")


def test_prefixes_come_off_where_they_are_not_meant(state: dict[str, torch.Tensor]) -> None:
    wrapped = {f"module._orig_mod.{key}": value for key, value in state.items()}
    assert list(unprefixed(wrapped, list(state))) == list(state)
    own = {f"model.{key}": value for key, value in state.items()}
    assert unprefixed(own, list(own)) is own
    assert list(unprefixed({**wrapped, "step": torch.zeros(1)}, list(state))) == [*wrapped, "step"]


def test_what_does_not_fit_is_counted_and_named() -> None:
    given = {"0.weight": torch.zeros(3, 5), "extra.a": torch.zeros(1), "extra.b": torch.zeros(1)}
    with pytest.raises(NetworkError) as caught:
        load_into(net(), Weights(given, "w.pt"), "my net")
    assert str(caught.value) == (
        "w.pt does not fit my net: 1 missing (0.bias), 2 unexpected (extra.a, extra.b), "
        "1 of another shape (0.weight 3x5 and not 3x2)"
    )
    many = {f"layer{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(NetworkError, match=r"9 unexpected \(layer0, layer1, layer2, …\)"):
        load_into(net(), Weights(many, "w.pt"), "my net")


def test_quantised_weights_are_refused(state: dict[str, torch.Tensor]) -> None:
    state["0.weight"] = torch.ones(3, 2, dtype=torch.int8)
    with pytest.raises(NetworkError, match=r"1 not of floating point \(0.weight\)"):
        load_into(net(), Weights(state, "w.pt"), "net")


def two_heads(classes: int | None) -> nn.Module:
    return nn.ModuleDict(
        {"body": nn.Linear(2, 4), "head": nn.Linear(4, classes or 9), "aux": nn.Linear(4, classes or 9)}
    )


def test_the_number_of_classes_is_read_off_the_last_layers() -> None:
    assert classes_of(two_heads(None), 9, two_heads(5).state_dict()) == 5
    assert classes_of(two_heads(None), 9, two_heads(None).state_dict()) is None
    wider = nn.ModuleDict({**two_heads(5), "body": nn.Linear(2, 6)}).state_dict()
    assert classes_of(two_heads(None), 9, wider) is None
    uneven = {**two_heads(5).state_dict(), "aux.bias": torch.zeros(6)}
    assert classes_of(two_heads(None), 9, uneven) is None


def test_build_with_another_number_of_classes() -> None:
    def pretrained() -> tuple[nn.Module, str]:
        raise AssertionError

    wanted = two_heads(5)
    plan = Blueprint("two", two_heads, pretrained, classes=9)
    module, changed = build_with(plan, Weights(wanted.state_dict(), "w.pt"))
    assert changed.classes == 5
    assert_close(module.state_dict(), wanted.state_dict(), rtol=0, atol=0)


def test_a_layout_that_the_library_itself_knows() -> None:
    def pretrained() -> tuple[nn.Module, str]:
        raise AssertionError

    def convert(state: dict[str, torch.Tensor], classes: int | None) -> nn.Module:
        module = net()
        module.load_state_dict({"0.weight": state["w"], "0.bias": state["b"]})
        return module

    plan = Blueprint("net", lambda _: net(), pretrained, convert=convert)
    module, _ = build_with(plan, Weights({"w": torch.ones(3, 2), "b": torch.ones(3)}, "w.pt"))
    assert_close(module[0].weight, torch.ones(3, 2))
    with pytest.raises(NetworkError, match="does not fit net: 2 missing"):
        build_with(plan, Weights({"q": torch.ones(3, 2)}, "w.pt"))
