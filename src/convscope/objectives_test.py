from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import objectives
from convscope.backward import gradient
from convscope.errors import NetworkError, OptionError, UnknownLayer, UnknownTarget
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import (
    Objective,
    Question,
    Unit,
    ask,
    channel,
    class_score,
    direction,
    diversity,
    each_its_own,
    energy,
    features,
    gram,
    grams,
    margins,
    mistaken,
    parse_objective,
    unit,
    within,
)

LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
MAPS = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)  # 0..11 and 12..23


@pytest.fixture
def network() -> Network:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(module, name="net", labels=("cat", "dog", "fox"), input_size=(2, 2))


def constant(value: float, layer: str = "a") -> Objective:
    return Objective(frozenset({layer}), lambda seen: seen[layer] * value, f"{value:g}")


def test_objectives_compose() -> None:
    seen = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([10.0, 20.0])}
    two, three = constant(2), constant(3, "b")
    assert (two + three)(seen).tolist() == [32.0, 64.0]
    assert (two - three)(seen).tolist() == [-28.0, -56.0]
    assert (0.5 * three)(seen).tolist() == [15.0, 30.0]
    assert (three * 0.5)(seen).tolist() == [15.0, 30.0]
    assert (-two)(seen).tolist() == [-2.0, -4.0]
    assert (two + three).layers == {"a", "b"}
    assert (0.5 * three - two).layers == {"a", "b"}
    assert (two - 0.1 * three).description == "2 + -1 * (0.1 * (3))"


def test_class_score_by_hand(network: Network) -> None:
    targets = torch.tensor([1, 2])
    seen = {OUTPUT: LOGITS}
    assert class_score(network, targets)(seen).tolist() == [2.0, 3.0]
    shares = LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)
    torch.testing.assert_close(class_score(network, targets, "probability")(seen), shares[[0, 1], [1, 2]])
    torch.testing.assert_close(class_score(network, targets, "loss")(seen), -shares[[0, 1], [1, 2]].log())
    assert class_score(network, targets).layers == {OUTPUT}


def test_one_class_for_all_pictures(network: Network) -> None:
    seen = {OUTPUT: LOGITS}
    for one in (2, torch.tensor(2), torch.tensor([2])):
        assert class_score(network, one)(seen).tolist() == [-1.0, 3.0]
        torch.testing.assert_close(
            class_score(network, one, "loss")(seen), F.cross_entropy(LOGITS, torch.tensor([2, 2]), reduction="none")
        )
    with pytest.raises(UnknownTarget, match="3 targets for 2 pictures"):
        class_score(network, torch.tensor([0, 1, 2]))(seen)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_probability_keeps_its_slope_in_half_precision(network: Network, dtype: torch.dtype) -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    for of, sign in (("probability", 1), ("loss", -1)):
        score = class_score(network, 0, of)({OUTPUT: logits})
        assert score.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        slope = gradient(score, logits)[0, 0]
        share = 1 / (1 + 2 * torch.tensor(-9.0, dtype=torch.float64).exp())
        expected = share * (1 - share) if of == "probability" else -(1 - share)
        torch.testing.assert_close(slope.double(), expected, rtol=1e-2, atol=0)
        assert slope * sign > 0


def test_class_scores_need_a_classifier(network: Network) -> None:
    with pytest.raises(NetworkError, match=r"returns \(2, 3, 2, 2\) and not \(N, classes\)"):
        class_score(network, 0)({OUTPUT: MAPS})
    assert class_score(network, 1)({OUTPUT: LOGITS[:, :, None, None]}).tolist() == [2.0, 0.0]


# ---- units


@pytest.mark.parametrize("targeted", [False, True])
def test_how_wrong_a_network_is(network: Network, targeted: bool) -> None:
    classes = torch.tensor([2, 0])
    sign = -1 if targeted else 1
    loss = mistaken(network, classes, targeted=targeted)({OUTPUT: LOGITS})
    shares = [
        math.exp(float(row[c])) / sum(math.exp(float(v)) for v in row) for row, c in zip(LOGITS, classes, strict=True)
    ]
    assert loss.tolist() == pytest.approx([-sign * math.log(share) for share in shares], abs=1e-5)
    margin = mistaken(network, classes, targeted=targeted, loss="margin")({OUTPUT: LOGITS})
    others = [max(float(v) for i, v in enumerate(row) if i != c) for row, c in zip(LOGITS, classes, strict=True)]
    assert margin.tolist() == pytest.approx([
        sign * (o - float(row[c])) for row, c, o in zip(LOGITS, classes, others, strict=True)
    ])  # fmt: skip
    assert (margins(LOGITS, classes) > 0).tolist() == (LOGITS.argmax(1) != classes).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", Unit(12)),
        (12, Unit(12)),
        ("12,3,4", Unit(12, (3, 4))),
        (" 12, 3 ,4 ", Unit(12, (3, 4))),
        ("12:3:4", Unit(12, (3, 4))),
    ],
)
def test_units_are_read(text: str | int, expected: Unit) -> None:
    assert Unit.parse(text) == expected
    assert Unit.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "a", "-1", -1, "1,2", "1,2,3,4", "1,2,x", "1.5"])
def test_what_is_no_unit_is_a_sentence(text: str | int) -> None:
    with pytest.raises(OptionError, match="is no unit: give CHANNEL, or CHANNEL,ROW,COLUMN"):
        Unit.parse(text)


def test_a_unit_is_one_activation_or_the_largest_of_its_channel(network: Network) -> None:
    seen = {"0": MAPS}
    assert unit(network, "0", Unit(1, (0, 1)))(seen).tolist() == [5.0, 17.0]
    assert unit(network, "0", Unit(1))(seen).tolist() == [7.0, 19.0]
    assert unit(network, "0", Unit(1))({"0": -MAPS}).tolist() == [-4.0, -16.0]
    assert unit(network, "0", Unit(0)).layers == {"0"}
    maps = MAPS.clone().requires_grad_()
    slope = gradient(unit(network, "0", Unit(2))({"0": maps}), maps)
    expected = torch.zeros_like(MAPS)
    expected[:, 2, 1, 1] = 1
    assert torch.equal(slope, expected)


def test_a_unit_of_a_layer_without_positions(network: Network) -> None:
    assert unit(network, "2", Unit(1))({"2": LOGITS}).tolist() == [2.0, 0.0]
    assert unit(network, "2", Unit(1, (0, 0)))({"2": LOGITS}).tolist() == [2.0, 0.0]


def test_units_outside_are_sentences(network: Network) -> None:
    with pytest.raises(OptionError, match="layer '0' has channels 0 to 2, not 3"):
        unit(network, "0", Unit(3))({"0": MAPS})
    with pytest.raises(OptionError, match="layer '0' has 2x2 positions; row 2, column 0 is outside"):
        unit(network, "0", Unit(0, (2, 0)))({"0": MAPS})
    with pytest.raises(OptionError, match="row 0, column 2 is outside"):
        unit(network, "0", Unit(0, (0, 2)))({"0": MAPS})


def test_direction_projects_the_channels(network: Network) -> None:
    found = direction(network, "0", torch.tensor([1.0, 0.0, -2.0]))({"0": MAPS})
    by_hand = [max(float(m[0, r, c] - 2 * m[2, r, c]) for r in range(2) for c in range(2)) for m in MAPS]
    assert found.tolist() == by_hand == [-16.0, -28.0]


def test_the_gradient_of_energy_is_the_activation() -> None:
    maps = MAPS.clone().requires_grad_()
    score = energy("x")({"x": maps})
    assert score.tolist() == [sum(i * i for i in range(12)) / 2, sum(i * i for i in range(12, 24)) / 2]
    assert torch.equal(gradient(score, maps), MAPS)


def test_objectives_read_what_was_observed(network: Network) -> None:
    pictures = torch.rand(2, 3, 4, 4)
    objective = class_score(network, 0) - 0.1 * unit(network, "0", Unit(2))
    found = objective(observe(network, pictures, objective.layers))
    maps = network.module[0](pictures)
    torch.testing.assert_close(found, (maps[:, 0].mean((1, 2)) - 0.1 * maps[:, 2].flatten(1).amax(1)).detach())


# ---- questions


def test_a_question_about_classes(network: Network) -> None:
    seen = {OUTPUT: LOGITS}
    for target, scores, classes in [
        (None, [2.0, 3.0], [1, 2]),
        (0, [1.0, 0.5], [0, 0]),
        ("fox", [-1.0, 3.0], [2, 2]),
        (["dog", 0], [2.0, 0.5], [1, 0]),
        (torch.tensor([2, 1]), [-1.0, 0.0], [2, 1]),
    ]:
        question = ask(network, target)
        assert question.layers == {OUTPUT}
        found, indices = question.scores(seen)
        assert found.tolist() == scores
        assert indices.tolist() == classes
    assert ask(network).answer_name(2) == "fox"


def test_a_question_about_a_unit(network: Network) -> None:
    question = ask(network, layer="0", unit="1,0,1")
    assert question.layers == {"0"}
    found, indices = question.scores({"0": MAPS})
    assert found.tolist() == [5.0, 17.0]
    assert indices.tolist() == [-1, -1]
    assert question.answer_name(-1) == "0 unit 1,0,1"
    assert ask(network, unit=1).layer == network.default_layer == "0"


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"layer": "0"}, OptionError, "layer needs unit"),
        ({"target": 1, "unit": 0}, OptionError, "a target class or a unit of a layer, not both"),
        ({"unit": 0, "of": "probability"}, OptionError, "the probability belongs to a class"),
        ({"unit": 0, "layer": "9"}, UnknownLayer, "net has no layer '9'"),
        ({"unit": "x"}, OptionError, "'x' is no unit"),
    ],
)
def test_contradictions_are_sentences(
    network: Network, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        ask(network, **options)


@pytest.mark.parametrize("target", [None, 1, "dog", [1], torch.tensor([1]), torch.tensor(1)], ids=repr)
def test_one_target_is_for_every_part(network: Network, target: Any) -> None:
    question = Question(network, target)
    assert question.of_part(slice(2, 4), 7) is question


@pytest.mark.parametrize("target", [[0, 1, 2, 1], (0, "dog", 2, "dog"), torch.tensor([0, 1, 2, 1])], ids=repr)
def test_a_target_a_picture_goes_with_its_picture(network: Network, target: Any) -> None:
    question = Question(network, target)
    found = [question.of_part(slice(i, i + 2), 4).scores({OUTPUT: LOGITS})[1].tolist() for i in (0, 2)]
    assert found == [[0, 1], [2, 1]]
    for count in (1, 3, 5, 40):  # also where the parts would fit by chance
        with pytest.raises(UnknownTarget, match=f"4 targets for {count} pictures; give one, or one a picture"):
            question.of_part(slice(0, min(count, 4)), count)


def test_no_targets_at_all(network: Network) -> None:
    with pytest.raises(UnknownTarget, match="0 targets for 2 pictures"):
        Question(network, []).of_part(slice(0, 2), 2)


def test_the_class_is_checked(network: Network) -> None:
    with pytest.raises(UnknownTarget, match="net has classes 0 to 2, not 3"):
        ask(network, 3).scores({OUTPUT: LOGITS})
    seen: dict[str, Tensor] = {OUTPUT: LOGITS}
    with pytest.raises(UnknownTarget, match="net knows no 'doge'; did you mean 'dog'"):
        ask(network, "doge").scores(seen)


def test_a_channel_counts_by_its_mean(network: Network) -> None:
    assert channel(network, "0", 1)({"0": MAPS}).tolist() == [5.5, 17.5]
    with pytest.raises(OptionError, match="channels 0 to 2, not 3"):
        channel(network, "0", 3)({"0": MAPS})


def gram_by_loops(maps: Tensor, centred: bool = False) -> Tensor:
    found = torch.zeros(len(maps), maps.shape[1], maps.shape[1], dtype=maps.dtype)
    for n in range(len(maps)):
        for i in range(maps.shape[1]):
            for j in range(maps.shape[1]):
                a, b = maps[n, i].flatten().tolist(), maps[n, j].flatten().tolist()
                a = [v - sum(a) / len(a) for v in a] if centred else a
                b = [v - sum(b) / len(b) for v in b] if centred else b
                found[n, i, j] = sum(x * y for x, y in zip(a, b, strict=True)) / len(a)
    return found


@pytest.mark.parametrize("centred", [False, True])
def test_gram_matrices_equal_three_loops(centred: bool) -> None:
    maps = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(gram(maps, centred=centred), gram_by_loops(maps, centred))


def test_the_gram_matrix_of_three_by_three_in_closed_form() -> None:
    ramp = torch.arange(9.0).reshape(1, 1, 3, 3)
    maps = torch.cat([ramp, torch.ones_like(ramp)], 1)
    torch.testing.assert_close(gram(maps)[0], torch.tensor([[204 / 9, 4.0], [4.0, 1.0]]))
    torch.testing.assert_close(gram(maps, centred=True)[0], torch.tensor([[60 / 9, 0.0], [0.0, 0.0]]))


def test_grams_summed_over_tiles_are_those_of_the_whole() -> None:
    maps = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    parts = [gram(part) * part[0, 0].numel() for part in (maps[..., :2], maps[..., 2:])]
    torch.testing.assert_close(sum(parts) / 36, gram(maps))


def test_features_and_grams_lose_shares_of_the_targets_size(network: Network) -> None:
    wanted, seen = MAPS.double() + 1, MAPS.double() * 2
    by_hand = [-((s - w) ** 2).sum() / (w**2).sum() for s, w in zip(seen, wanted, strict=True)]
    torch.testing.assert_close(features({"0": wanted})({"0": seen}), torch.stack(by_hand))
    assert features({"0": wanted})({"0": wanted}).tolist() == [0, 0]
    target = gram_by_loops(wanted)
    found = gram_by_loops(seen)
    by_hand = [-0.5 * ((f - t) ** 2).sum() / (t**2).sum() for f, t in zip(found, target, strict=True)]
    torch.testing.assert_close(grams(network, {"0": target}, {"0": 0.5})({"0": seen}), torch.stack(by_hand))


def of_each_kind(network: Network) -> dict[str, list[Objective]]:
    """Objectives of layer 0 and of the logits, by the function that makes them."""
    target = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classes = torch.tensor([2, 0])
    return {
        "class_score": [class_score(network, classes, of) for of in ("score", "probability", "loss")],
        "mistaken": [mistaken(network, classes, targeted=t, loss=o) for t in (True, False)
                     for o in ("cross-entropy", "margin")],
        "unit": [unit(network, "0", Unit(1, (0, 1))), unit(network, "0", Unit(2, None))],
        "direction": [direction(network, "0", torch.tensor([0.5, -1.0, 2.0]))],
        "channel": [channel(network, "0", 1)],
        "parse_objective": [parse_objective(network, "cat - 0.5*0:1 + 0.1*0:all")],
        "within": [within(network, "0", "all")],
        "diversity": [diversity(network, "0", 2)],
        "features": [features({"0": target}, {"0": 0.3})],
        "grams": [grams(network, {"0": gram(target, centred=c)}, centred=c) for c in (False, True)],
        "energy": [energy("0")],
        "each_its_own": [each_its_own([energy("0"), class_score(network, 1)])],
    }  # fmt: skip


def test_every_objective_differentiates_as_finite_differences_say(network: Network) -> None:
    generator = torch.Generator().manual_seed(2)
    maps, logits = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 2, 2), (2, 3))
    )
    known = of_each_kind(network)
    public = {n: f for n, f in vars(objectives).items() if inspect.isfunction(f) and not n.startswith("_")}
    assert known.keys() == {n for n, f in public.items() if inspect.signature(f).return_annotation == "Objective"}
    for objective in [each for several in known.values() for each in several]:
        assert torch.autograd.gradcheck(lambda x, y, o=objective: o({"0": x, OUTPUT: y}), (maps, logits))


def test_each_picture_has_its_own_objective_in_every_view(network: Network) -> None:
    mine = each_its_own([unit(network, "0", Unit(0, (0, 0))), channel(network, "0", 2)])
    assert mine({"0": MAPS}).tolist() == [0.0, 21.5]
    assert mine({"0": torch.cat([MAPS, MAPS * 2])}).tolist() == [0.0, 21.5, 0.0, 43.0]


def test_pictures_of_a_group_are_pushed_apart_by_their_cosines(network: Network) -> None:
    maps = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    found = diversity(network, "0", 2)({"0": maps})
    flat = gram(maps).flatten(1)
    pair = lambda i, j: float(flat[i] @ flat[j] / flat[i].norm() / flat[j].norm())  # noqa: E731
    torch.testing.assert_close(found, -torch.tensor([pair(0, 1)] * 2 + [pair(2, 3)] * 2))
    assert diversity(network, "0", 2)({"0": MAPS[[0, 0]]}).tolist() == pytest.approx([-1, -1], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", LOGITS[:, 0]),
        ("cat - 0.5*dog", LOGITS[:, 0] - 0.5 * LOGITS[:, 1]),
        ("- 2 * 2 + fox", -LOGITS[:, 2]),
        ("0:1", MAPS[:, 1].mean((1, 2))),
        ("fox + 3*0:2,1,0", LOGITS[:, 2] + 3 * MAPS[:, 2, 1, 0]),
        ("0.1*0:all", MAPS.square().sum((1, 2, 3)) / 20),
    ],
)
def test_sums_of_classes_and_units_are_read(network: Network, text: str, expected: Tensor) -> None:
    found = parse_objective(network, text)
    torch.testing.assert_close(found({OUTPUT: LOGITS, "0": MAPS}), expected)
    assert found.description == text


def test_sums_that_cannot_be_read_are_said(network: Network) -> None:
    with pytest.raises(OptionError, match="empty"):
        parse_objective(network, "  ")
    with pytest.raises(UnknownTarget):
        parse_objective(network, "cat + wolf")
    with pytest.raises(UnknownLayer):
        parse_objective(network, "layer9:3")


def test_within_a_layer(network: Network) -> None:
    assert within(network, "0", "all")({"0": MAPS}).tolist() == energy("0")({"0": MAPS}).tolist()
    assert within(network, "0", 2)({"0": MAPS}).tolist() == [9.5, 21.5]
    assert within(network, "0", "2,1,1")({"0": MAPS}).tolist() == [11.0, 23.0]
