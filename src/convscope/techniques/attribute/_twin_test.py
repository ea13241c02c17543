"""The copy computes what the network computes, whatever way of writing it, and each operation is a module once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import NetworkError
from convscope.network import Network
from convscope.objectives import ask
from convscope.techniques.attribute._twin import Mean, Scale, Sum, Twin, twin

pytest_plugins = "convscope.techniques.attribute._examples_test"


class Written(nn.Module):
    """A network that is written in as many ways as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.norm3 = nn.BatchNorm2d(6)
        self.act, self.soft = nn.ReLU(inplace=True), nn.Tanh()
        self.fc = nn.Linear(6, 3)
        self.register_buffer("gain", torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        x = 1.5 * x
        x = self.norm1(self.conv1(x))
        self.act(x)  # its result is thrown away, and x is another
        y = F.batch_norm(self.conv2(x), self.norm2.running_mean, self.norm2.running_var, self.norm2.weight, None)
        y += x
        y = self.act(self.norm3(F.max_pool2d(y, 3, stride=2, padding=1)))
        z = F.leaky_relu(y * self.gain, 0.2)
        z = torch.sigmoid(z) + torch.relu_(self.soft(z))
        z.relu_()
        z = self.soft(z)
        return self.fc(z.mean((2, 3)) + F.adaptive_avg_pool2d(y, 1).flatten(1))


@pytest.fixture
def written() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = Written().eval()
        for norm in (module.norm1, module.norm2, module.norm3):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.data.uniform_(0.5, 1.5)
    return Network(module, input_size=(8, 10))


def kinds(copied: Twin) -> list[str]:
    return [
        type(copied.module.get_submodule(str(node.target))).__name__
        for node in copied.module.graph.nodes
        if node.op == "call_module"
    ]


def test_it_computes_the_same(written: Network, pictures: Tensor) -> None:
    copied = twin(ask(written))
    for target in range(3):
        found = copied.scores(copied.normalised(pictures), ask(written, target))
        torch.testing.assert_close(found, written(pictures)[:, target], rtol=1e-4, atol=1e-5)


def test_each_operation_is_a_module_that_runs_once(written: Network) -> None:
    copied = twin(ask(written))
    assert kinds(copied) == [
        "Scale", "Conv2d", "ReLU", "Conv2d", "Sum", "MaxPool2d", "BatchNorm2d", "ReLU", "Scale", "LeakyReLU",
        "Sigmoid", "Tanh", "ReLU", "Sum", "ReLU", "Tanh", "Mean", "AdaptiveAvgPool2d", "Sum", "Linear",
    ]  # fmt: skip
    targets = [node.target for node in copied.module.graph.nodes if node.op == "call_module"]
    assert len(set(targets)) == len(targets)
    assert not any(getattr(module, "inplace", False) for module in copied.module.modules())
    assert not copied.ruleless


def test_the_network_is_not_touched(written: Network, pictures: Tensor) -> None:
    before = {name: (id(value), value.clone()) for name, value in written.module.state_dict(keep_vars=True).items()}
    twin(ask(written))
    after = written.module.state_dict(keep_vars=True)
    assert all(id(after[name]) == place and torch.equal(after[name], value) for name, (place, value) in before.items())
    assert written.module.act.inplace


def test_half_precision_is_computed_in_single(written: Network, pictures: Tensor) -> None:
    expected = written(pictures)[:, 1]
    written.module.to(torch.bfloat16)
    copied = twin(ask(written))
    found = copied.scores(copied.normalised(pictures), ask(written, 1))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("layer", ["conv2", "act", "act:0", "norm3"])
def test_it_ends_at_the_layer_that_is_asked_about(layer: str, written: Network, pictures: Tensor) -> None:
    from convscope.hooks import observe

    question = ask(written, layer=layer, unit="2,1,3")
    copied = twin(question)
    found = copied.scores(copied.normalised(pictures), question)
    expected = question.scores(observe(written, pictures, [layer]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_of_layers_ends_with_the_last_of_them(pictures: Tensor) -> None:
    module = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 2, 1), nn.Flatten())
    net = Network(module.eval(), input_size=(8, 10))
    question = ask(net, layer="0", unit="3,1,1")
    copied = twin(question)
    expected = module[0](pictures)[:, 3, 1, 1]
    torch.testing.assert_close(copied.scores(copied.normalised(pictures), question), expected)
    assert kinds(copied) == ["Conv2d", "ReLU"]


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        height = x.size(2) * 2 // 2
        return self.norm((x * x.sigmoid())[:, :, :height].mean((2, 3)))


def test_what_has_no_rule_is_named_and_sizes_are_no_products(pictures: Tensor) -> None:
    copied = twin(ask(Network(Gated().eval(), input_size=(8, 10))))
    assert copied.ruleless == ("LayerNorm", "products of activations")
    assert copied.remarks() == [
        "no rule is known for LayerNorm, products of activations: there the plain gradient passes"
    ]


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x if x.mean() > 0 else -x).flatten(1)


def test_a_network_whose_course_depends_on_numbers_gets_a_sentence() -> None:
    with pytest.raises(
        NetworkError, match=r"^torch.fx cannot follow network \(.*control flow.*use integrated"
    ) as error:
        twin(ask(Network(Choosing(), input_size=(8, 10))))
    assert "\n" not in str(error.value)


class Counting(nn.Module):
    """Computes another thing the second time, as no trace can know."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.times = nn.Linear(240, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        return self.fc(x.flatten(1)) * self.times


def test_a_copy_that_computes_something_else_is_refused(pictures: Tensor) -> None:
    net = Network(Counting(), input_size=(8, 10))
    copied, question = twin(ask(net)), ask(net, 0)
    net(pictures)
    with pytest.raises(NetworkError, match=r"torch\.fx cannot follow it"):
        copied.check(pictures, question, net(pictures)[:, 0])


def test_the_modules_compute_their_operations() -> None:
    first, second = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 1, 1)
    torch.testing.assert_close(Sum(nn.Identity())(first, second).sum(-1), first + second)
    torch.testing.assert_close(Mean(False)(first), first.mean((2, 3)))
    torch.testing.assert_close(Mean(True)(first), first.mean((2, 3), keepdim=True))
    torch.testing.assert_close(Scale(-2.0)(first), -2 * first)
