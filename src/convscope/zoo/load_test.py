"""load_network(): every kind of network, what is known about it, and what is said when it cannot be had."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.testing import assert_close

from convscope.backward import gradient
from convscope.errors import MissingExtra, NetworkError, OptionError
from convscope.images import read_image
from convscope.network import Network
from convscope.zoo import builtin, load_network, timm_models, torchvision_models

SHARED = Path(__file__).parents[4] / "shared"
IMAGENET = SHARED / "models" / "squeezenet1_0_imagenet.safetensors"
NAMES = SHARED / "models" / "imagenet_classes.json"


class Small(nn.Module):
    """Two channels, three classes, with something that evaluation mode changes."""

    def __init__(self, channels: int = 3, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def seeded(build: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine)


# ---- a module of one's own


def test_a_module_is_taken_as_it_is() -> None:
    module = Small().train()
    network = load_network(module)
    assert network.module is module
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert (network.name, network.weights, network.input_size, network.crop) == ("Small", "as given", (224, 224), 1.0)
    assert network.mean.tolist() == [0, 0, 0]
    assert network.std.tolist() == [1, 1, 1]
    assert network.labels == ()
    assert network.arithmetic == "float32"


def test_options_describe_a_module() -> None:
    network = load_network(
        Small(), labels=["a", "b", "c"], mean=(0.1, 0.2, 0.3), std=0.5, input_size=(32, 48), crop=0.9,
        precision="bfloat16", name="mine",
    )  # fmt: skip
    assert_close(network.mean, torch.tensor([0.1, 0.2, 0.3]))
    assert network.std.tolist() == [0.5, 0.5, 0.5]
    assert (network.labels, network.input_size, network.crop) == (("a", "b", "c"), (32, 48), 0.9)
    assert (network.precision, network.name) == ("bfloat16", "mine")
    assert load_network(Small(), output="logits").output == "logits"


def test_one_channel_is_seen_in_the_first_convolution() -> None:
    network = load_network(Small(channels=1), input_size=16)
    assert network.mean.tolist() == [0]
    assert network.std.tolist() == [1]
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert load_network(Small(channels=1), mean=0.13, std=0.3).mean.shape == (1,)


def test_one_mean_without_a_convolution_means_grey() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    network = load_network(module, mean=0.5, input_size=8)
    assert network.mean.tolist() == [0.5]
    assert network.classes == 5


def test_a_network_is_handed_back_with_what_it_knows() -> None:
    network = load_network(Small(), input_size=16)
    assert network.layers()
    assert load_network(network) is network


def test_options_replace_those_of_a_network() -> None:
    network = Network(Small(channels=1), torch.tensor([0.2]), torch.tensor([0.4]), ("a", "b", "c"), "n", (20, 20), 0.5)
    changed = load_network(network, input_size=24, mean=0.3)
    assert changed.module is network.module
    assert_close(changed.mean, torch.tensor([0.3]))
    assert_close(changed.std, torch.tensor([0.4]))
    assert (changed.labels, changed.name, changed.input_size, changed.crop) == (("a", "b", "c"), "n", (24, 24), 0.5)
    assert network.input_size == (20, 20)


def test_weights_for_a_module_go_into_a_copy() -> None:
    module, other = seeded(Small, 1), seeded(Small, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = load_network(module, other.state_dict())
    assert network.module is not module
    assert same(network.module, other)
    assert network.weights == "given state dict"
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_random_weights_for_a_module_are_fresh_seeded_and_in_a_copy() -> None:
    module = seeded(Small, 1)
    first, again, other = (load_network(module, "random", seed=s) for s in (3, 3, 4))
    assert same(first.module, again.module)
    assert not torch.equal(first.module.conv.weight, other.module.conv.weight)
    assert not torch.equal(first.module.conv.weight, module.conv.weight)
    assert same(module, seeded(Small, 1))
    assert first.weights == "random, seed 3"


def test_random_weights_reach_bare_parameters() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1000))

    assert 0.015 < load_network(Bare(), "random").module.scale.std() < 0.025


@pytest.mark.slow
def test_compiled_and_parallel_modules_are_unwrapped() -> None:
    module = Small()
    assert load_network(torch.compile(module)).module is module
    assert load_network(nn.DataParallel(module)).module is module
    module.compile()
    unwrapped = load_network(module).module
    assert unwrapped._compiled_call_impl is None
    assert module._compiled_call_impl is not None
    assert unwrapped.conv is module.conv


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_module_is_refused() -> None:
    with pytest.raises(NetworkError, match="TorchScript module, whose layers cannot be looked at"):
        load_network(torch.jit.trace(Small().eval(), torch.rand(1, 3, 8, 8)))


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_damaged_weights_are_named(value: float, word: str) -> None:
    module = Small()
    module.head.weight.data[1, 1] = value
    with pytest.raises(NetworkError, match=f"'head.weight' of Small holds {word} values"):
        load_network(module)
    module = Small()
    module.norm.running_var[0] = value
    with pytest.raises(NetworkError, match=f"'norm.running_var' of Small holds {word}"):
        load_network(module)


def test_infinite_masks_are_no_damage() -> None:
    module = Small()
    module.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    assert load_network(module).module is module


def test_weights_without_values_are_named() -> None:
    with torch.device("meta"):
        module = Small()
    with pytest.raises(NetworkError, match=r"'conv.weight' of Small has no values"):
        load_network(module)
    with pytest.raises(NetworkError, match=r"'0.weight' of Sequential has no shape yet"):
        load_network(nn.Sequential(nn.LazyConv2d(2, 3)))


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(NetworkError, match="not a dict"):
        load_network({"conv": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.1, 0.2)}, "mean is one number, or one each"),
        ({"mean": "grey"}, "mean is one number"),
        ({"std": 0.0}, "std must be above 0"),
        ({"input_size": 0}, "input_size is a side"),
        ({"input_size": (1, 2, 3)}, "input_size is a side"),
        ({"crop": 1.5}, "crop is a share"),
        ({"precision": "float16"}, "precision is one of auto, float32, bfloat16"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
    ],
)
def test_options_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_network(Small(), **options)


def test_labels_are_counted() -> None:
    with pytest.raises(NetworkError, match="2 labels for the 3 classes of Small"):
        load_network(Small(), labels=["a", "b"], input_size=16)


def test_another_device_gets_a_copy() -> None:
    module = Small()
    moved = load_network(module, "default", device="meta")
    assert moved.module is not module
    assert next(moved.module.parameters()).is_meta
    assert not next(module.parameters()).is_meta
    assert load_network(module, device="cpu").module is module


# ---- files of one's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("CLASSES = 4\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom torch import nn\nfrom neighbour import CLASSES\n"
        "def small():\n    return nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.Dropout(), nn.Flatten(2))\n"
        "def wants(classes):\n    return small()\n"
        "def wrong():\n    return 3\n"
        "def broken():\n    raise ValueError('no such width')\n"
        "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(3, 2)\n"
        "ready = nn.Linear(1, 1)\n"
    )
    return path


def test_a_factory_in_a_file(own: Path) -> None:
    before, path = torch.get_rng_state(), list(sys.path)
    network = load_network(f"{own}:small", device="cpu", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert sys.path == path
    assert network.name == "mine.py:small"
    assert network.module[0].out_channels == 4
    assert not network.module.training
    assert same(network.module, load_network(f"{own}:small", device="cpu", seed=5).module)
    assert not same(network.module, load_network(f"{own}:small", device="cpu", seed=6).module)
    assert type(load_network(f"{own}:Net", device="cpu").module).__name__ == "Net"
    assert load_network(f"{own}:ready", device="cpu").module.in_features == 1


def test_a_factory_takes_weights(own: Path, tmp_path: Path) -> None:
    state = {"0.weight": torch.full((4, 3, 3, 3), 2.0), "0.bias": torch.zeros(4)}
    save_file(state, tmp_path / "w.safetensors")
    network = load_network(f"{own}:small", tmp_path / "w.safetensors", device="cpu")
    assert_close(network.module[0].weight, state["0.weight"])
    assert network.weights.startswith("w.safetensors sha256:")


def test_a_factory_in_a_module() -> None:
    network = load_network("convscope.zoo.architecture:build", device="cpu")
    assert network.module.fc6.out_features == 100


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (":smal", "defines no 'smal'; did you mean 'small'"),
        ("", r"say which factory of .*mine.py makes the network: .*mine.py:small"),
        (":wants", "is called without arguments, and missing a required argument: 'classes'"),
        (":wrong", "gives a int; it must return an nn.Module"),
        (":broken", r"mine.py, line 11: ValueError: no such width"),
    ],
)
def test_a_factory_that_does_not_work(own: Path, factory: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(f"{own}{factory}")


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import torch\n\ndef net(:\n")
    with pytest.raises(NetworkError, match=r"bad.py, line 3: .*invalid syntax"):
        load_network(f"{path}:net")
    path.write_text("import torch\nraise SystemExit(2)\n")
    with pytest.raises(NetworkError, match=r"bad.py, line 2: SystemExit: 2"):
        load_network(f"{path}:net")
    with pytest.raises(NetworkError, match=r"there is no file 'nowhere.py'"):
        load_network("nowhere.py:net")


# ---- the built-in network


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as the export writes it: half precision, everything in the metadata."""
    path = tmp_path / "builtin.safetensors"
    state = {key: value.half() for key, value in seeded(lambda: builtin.build(5), 7).state_dict().items()}
    metadata = {"labels": ["a", "b", "c", "d", "e"], "mean": [0.4, 0.5, 0.6], "std": [0.25] * 3, "input_size": [96, 96]}
    save_file(state, path, {key: json.dumps(value) for key, value in metadata.items()})
    monkeypatch.setitem(builtin.FILES, "builtin", path)
    return path


def test_the_builtin_network_comes_from_its_file(trained: Path) -> None:
    network = load_network("builtin", device="cpu")
    assert network.labels == ("a", "b", "c", "d", "e")
    assert_close(network.mean, torch.tensor([0.4, 0.5, 0.6]))
    assert (network.input_size, network.crop, network.name) == ((96, 96), 1.0, "builtin")
    assert network.weights.startswith("builtin.safetensors sha256:")
    assert network.classes == 5
    wanted = seeded(lambda: builtin.build(5), 7).fc5.weight.half().float()
    assert network.module.fc5.weight.dtype == torch.float32
    assert_close(network.module.fc5.weight, wanted, rtol=0, atol=0)


def test_the_builtin_network_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(builtin.FILES, "builtin", tmp_path / "builtin.safetensors")
    with pytest.raises(NetworkError, match=r"lacks builtin.safetensors; install it again"):
        load_network("builtin")
    network = load_network("builtin", "random", device="cpu")
    assert network.classes == 100
    assert network.labels == ()
    assert network.input_size == (128, 128)


def test_the_builtin_network_that_is_shipped() -> None:
    network = load_network("builtin", device="cpu")
    assert len(network.labels) == network.classes == 100
    assert "accordion" in network.labels


def test_the_robust_network_is_the_builtin_one_with_other_weights() -> None:
    plain, robust = load_network("builtin", device="cpu"), load_network("builtin-robust", device="cpu")
    assert robust.name == "builtin-robust"
    assert robust.weights.startswith("builtin-robust.safetensors sha256:")
    assert robust.labels == plain.labels
    assert [(i.name, i.shape) for i in robust.layers()] == [(i.name, i.shape) for i in plain.layers()]
    assert builtin.FILES["builtin-robust"].stat().st_size < 5_500_000
    with safe_open(builtin.FILES["builtin-robust"], "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    assert recipe["epsilon"] == 4 / 255
    assert recipe["weights"] == plain.weights  # where training began


# ---- torchvision and timm


def test_torchvision_random_weights_and_description() -> None:
    before = torch.get_rng_state()
    network = load_network("torchvision:squeezenet1_1", "random", device="cpu", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.name == "torchvision:squeezenet1_1"
    assert network.weights == "random, seed 1"
    assert_close(network.mean, torch.tensor([0.485, 0.456, 0.406]))
    assert_close(network.std, torch.tensor([0.229, 0.224, 0.225]))
    assert (network.input_size, network.crop) == ((224, 224), 0.875)
    assert network.labels[:2] == ("tench", "goldfish")
    again = load_network("torchvision:squeezenet1_1", "random", device="cpu", seed=1)
    assert same(network.module, again.module)


def test_timm_random_weights_and_description() -> None:
    network = load_network("timm:mobilenetv3_small_050", "random", device="cpu")
    assert network.input_size == (224, 224)
    assert network.crop == 0.875
    assert network.labels[0] == "tench, Tinca tinca"
    assert len(network.labels) == network.classes == 1000
    assert not network.module.training


def test_own_training_in_torchvisions_layout(tmp_path: Path) -> None:
    models = torchvision_models.import_torchvision().models
    trained = seeded(lambda: models.shufflenet_v2_x0_5(num_classes=7))
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "c.pth"
    )
    network = load_network("torchvision:shufflenet_v2_x0_5", tmp_path / "c.pth", list("abcdefg"), device="cpu")
    assert same(network.module, trained)
    assert network.classes == 7
    assert network.labels == tuple("abcdefg")
    assert load_network("torchvision:shufflenet_v2_x0_5", tmp_path / "c.pth", device="cpu").labels == ()


def test_own_training_in_timms_layout() -> None:
    timm = timm_models.import_timm()
    trained = seeded(lambda: timm.create_model("mobilenetv3_small_050", num_classes=7))
    network = load_network("timm:mobilenetv3_small_050", trained.state_dict(), device="cpu")
    assert same(network.module, trained)


def test_googlenet_is_built_as_its_published_weights_want_it() -> None:
    models = torchvision_models.import_torchvision().models
    published = seeded(
        lambda: models.googlenet(weights=None, init_weights=False, aux_logits=True, transform_input=True)
    )
    network = load_network("torchvision:googlenet", published.state_dict(), device="cpu")
    assert network.module.transform_input
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert_close(network(image), published.eval()((image - mean) / std))


def test_old_names_of_densenet() -> None:
    old = torchvision_models._translated({"features.denseblock1.denselayer1.norm.1.weight": torch.ones(1)})
    assert list(old) == ["features.denseblock1.denselayer1.norm1.weight"]


@pytest.mark.slow
def test_a_vit_takes_the_size_that_its_weights_were_trained_for() -> None:
    models = torchvision_models.import_torchvision().models
    trained = seeded(lambda: models.vit_b_32(image_size=96))
    network = load_network("torchvision:vit_b_32", trained.state_dict(), device="cpu")
    assert network.input_size == (96, 96)
    assert network.classes == 1000


@pytest.mark.slow
def test_a_size_that_an_architecture_is_made_for() -> None:
    network = load_network("torchvision:vit_b_32", "random", input_size=64, device="cpu")
    assert network.layer("encoder").shape == (5, 768)
    with pytest.raises(NetworkError, match=r"torchvision:vit_b_32 cannot be built: .*indivisible"):
        load_network("torchvision:vit_b_32", "random", input_size=50)
    small = load_network("timm:deit_tiny_patch16_224", "random", input_size=64, device="cpu")
    assert small.layer("blocks").shape == (17, 192)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "there is no network 'resnet18'; did you mean torchvision:resnet18 or timm:resnet18"),
        ("torchvision:resnet19", "torchvision has no network 'resnet19'; did you mean 'resnet1"),
        ("torchvision:fcn_resnet50", "torchvision:fcn_resnet50 is no classifier"),
        ("timm:resnet51x", "timm has no network 'resnet51x'; did you mean"),
        ("timm:resnet18.nobody", "timm:resnet18 has no weights 'nobody'; it has .*a1_in1k"),
        ("bultin", "there is no network 'bultin'.* did you mean 'builtin'"),
        (str(NAMES), "is a file and no network" if NAMES.is_file() else "there is no network"),
    ],
)
def test_unknown_names(spec: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(spec)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def offline(*_: Any, **options: Any) -> Any:
        assert options["weights_only"]
        print("Downloading")
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(NetworkError, match=r"cannot be fetched .*no route.*; pass --weights FILE"):
        load_network("torchvision:squeezenet1_0")
    assert capsys.readouterr().out == ""


def test_timms_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(timm_models, "_stored", lambda _: None)
    monkeypatch.setattr(timm_models, "_check_hub", offline)
    with pytest.raises(
        NetworkError, match=r"the weights of timm:resnet18 cannot be fetched .no route.; pass --weights"
    ):
        load_network("timm:resnet18")


def test_timm_uses_what_was_fetched_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timm = timm_models.import_timm()
    trained = seeded(lambda: timm.create_model("mobilenetv3_small_050"))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm_models, "_stored", lambda _: str(tmp_path / "model.safetensors"))
    network = load_network("timm:mobilenetv3_small_050", device="cpu")
    assert same(network.module, trained)
    assert network.weights == "timm mobilenetv3_small_050.lamb_in1k"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'convscope\[zoo\]'"):
        load_network("timm:resnet18")


# ---- torchvision's operators


def test_missing_operators_are_declared_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def importer(*_: str) -> Any:
        calls.append("import")
        if len(calls) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return SimpleNamespace(models="models")

    monkeypatch.setattr(torchvision_models, "require", importer)
    monkeypatch.setattr(torchvision_models, "_SCHEMAS", {"convscope_test": "convscope_test(Tensor x) -> Tensor"})
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision.extension", SimpleNamespace())
    with caplog.at_level(logging.WARNING, "convscope"):
        assert torchvision_models.import_torchvision().models == "models"
        torchvision_models.import_torchvision()
    assert "torchvision.extension" not in sys.modules
    assert hasattr(torch.ops.torchvision, "convscope_test")
    assert len(caplog.records) == 1
    assert len(calls) == 3


def test_other_errors_of_torchvision_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def importer(*_: str) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(torchvision_models, "require", importer)
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_models.import_torchvision()


# ---- real weights on real photographs


@pytest.mark.real
@pytest.mark.parametrize(
    ("photograph", "words"),
    [("cat", {"tabby", "tiger cat", "Egyptian cat"}), ("coffee", {"espresso", "cup", "eggnog"})],
)
def test_squeezenet_names_what_is_in_photographs(photograph: str, words: set[str]) -> None:
    data = pytest.importorskip("skimage.data")
    network = load_network("torchvision:squeezenet1_0", IMAGENET, NAMES, device="cpu")
    picture = torch.from_numpy(getattr(data, photograph)()).permute(2, 0, 1) / 255
    probabilities = network(network.prepare(picture).reshape(1, 3, 224, 224)).softmax(1)[0]
    assert network.label(int(probabilities.argmax())) in words
    assert network.weights == "squeezenet1_0_imagenet.safetensors sha256:f5eb7572…"


@pytest.mark.real
@pytest.mark.slow
def test_the_robust_network_stands_what_the_plain_one_does_not() -> None:
    """Ten steps of projected gradient descent, written out, on test photographs of Caltech-101."""
    plain, robust = load_network("builtin", device="cpu"), load_network("builtin-robust", device="cpu")
    chosen = ("flamingo", "Motorbikes", "sunflower", "watch", "yin_yang", "pagoda", "Leopards", "stop_sign")
    images, labels = [], []
    with tarfile.open(SHARED / "data" / "caltech101" / "test.tar") as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
        for label in chosen:
            found = [m for m in members if Path(m.name).parent.name == label][:3]
            images += [plain.prepare(read_image(tar.extractfile(m).read())) for m in found]
            labels += [plain.target(label)] * len(found)
    given, truth = torch.stack(images), torch.tensor(labels)
    standing = {}
    for network in (plain, robust):
        moved = given.clone()
        for _ in range(10):
            moved = moved.detach().requires_grad_()
            slope = gradient(torch.nn.functional.cross_entropy(network(moved), truth), moved)
            moved = (given + (moved + slope.sign() / 255 - given).clamp(-4 / 255, 4 / 255)).clamp(0, 1)
        standing[network.name] = network(moved.detach()).argmax(1) == truth
    only = {name: int((stands & ~(standing["builtin"] & standing["builtin-robust"])).sum())
            for name, stands in standing.items()}  # fmt: skip
    by_chance = binomtest(only["builtin"], sum(only.values()), alternative="less").pvalue
    assert by_chance < 0.001, "photographs that only one of the two tells right: " + str(only)
    assert standing["builtin-robust"].float().mean() > 2 / 3


def test_a_file_that_imports_torchvision_works_where_its_operators_do_not_match_torch(tmp_path: Path) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torchvision.models import resnet18\n\ndef trained():\n    return resnet18(num_classes=3)\n"
    )
    code = (
        "import torch, convscope\n"
        f"network = convscope.load_network({str(tmp_path / 'mynet.py:trained')!r}, input_size=64)\n"
        "assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
