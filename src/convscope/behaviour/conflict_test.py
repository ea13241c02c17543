from __future__ import annotations

import math

import pytest

from convscope.behaviour.conflict import Count, Decision, counted, cues, over_all
from convscope.errors import OptionError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat7-elephant1.png", ("cat", "elephant")),
        ("a/b/airplane1-bicycle2.jpg", ("airplane", "bicycle")),
        ("wild_cat-sea_horse12.png", ("wild_cat", "sea_horse")),
        ("tabby cat3-dog.webp", ("tabby cat", "dog")),
        ("Shih-Tzu2-ant1.png", ("Shih-Tzu", "ant")),
        ("ant2-Shih-Tzu1.png", ("ant", "Shih-Tzu")),
    ],
)
def test_names_say_shape_and_texture(name: str, expected: tuple[str, str]) -> None:
    assert cues(name, ["Shih-Tzu", "ant"]) == expected


@pytest.mark.parametrize("name", ["cat.png", "cat7.png", "-cat1.png", "12-cat1.png"])
def test_other_names_get_a_remedy(name: str) -> None:
    with pytest.raises(OptionError, match=r"does not say its shape and texture; name pictures as cat7-elephant1\.png"):
        cues(name)


def test_the_count_against_trials_made_by_hand() -> None:
    trials = [
        ("cat", "dog", "cat"), ("cat", "dog", "cat"), ("cat", "bee", "cat"), ("cat", "bee", "bee"),
        ("cat", "dog", "bee"), ("dog", "cat", "cat"), ("dog", "bee", "ant"), ("bee", "bee", "bee"),
        ("bee", "bee", "cat"),
    ]  # fmt: skip
    found = counted([Decision(*trial) for trial in trials])
    assert found == [Count("cat", 3, 1, 1), Count("dog", 0, 1, 1)]
    assert [count.bias.mean for count in found] == [0.75, 0.0]
    assert found[1].bias.high > 0.5
    together = over_all(found)
    assert together == Count("all", 3, 2, 2)
    assert (together.bias.mean, together.total) == (0.6, 7)


def test_the_bias_is_unknown_where_nothing_was_decided() -> None:
    assert math.isnan(counted([Decision("cat", "dog", "ant")])[0].bias.mean)
    assert counted([Decision("cat", "cat", "cat")]) == []
