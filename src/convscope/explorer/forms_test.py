"""The forms, over the whole registry: every option has a field, and what a field can hold is taken."""

from __future__ import annotations

import json

import pytest

from convscope import registry
from convscope.errors import OptionError
from convscope.explorer import forms

KINDS = {"number", "integer", "text", "flag", "choice", "picture", "target", "layer", "unit"}
NAMES = list(registry.discover())


@pytest.mark.parametrize("name", NAMES)
def test_every_technique_has_a_form(name: str) -> None:
    technique = registry.load(name)
    told = json.loads(json.dumps(forms.described(technique)))
    assert told["summary"]
    assert told["caution"]
    offered = {option.name for option in technique.options if forms.offered(option)}
    assert {field["name"] for field in told["options"]} == offered
    for field in told["options"]:
        assert field["kind"] in KINDS
        assert field["description"]
        assert (field["kind"] == "choice") == bool(field["choices"])


@pytest.mark.parametrize("name", NAMES)
def test_what_the_fields_hold_at_first_is_what_the_technique_takes(name: str) -> None:
    technique = registry.load(name)
    fields = forms.described(technique)["options"]
    given = {f["name"]: f["default"] for f in fields if f["default"] not in (None, []) and f["kind"] != "picture"}
    assert technique.check(forms.taken(technique, given))


def test_kinds_and_limits_of_some() -> None:
    fields = {f["name"]: f for f in forms.described(registry.load("visualize"))["options"]}
    assert fields["target"]["kind"] == "target"
    assert fields["layer"]["kind"] == "layer"
    assert fields["preset"]["choices"] == ["crops", "maco", "lucid", "yosinski", "simonyan"]
    assert (fields["steps"]["kind"], fields["steps"]["ge"]) == ("integer", 1)
    assert fields["photograph"]["kind"] == "picture"
    assert not {"resume", "direction"} & set(fields)


def test_only_offered_options_are_taken() -> None:
    technique = registry.load("visualize")
    assert forms.taken(technique, {"steps": 3, "target": ""}) == {"steps": 3}
    with pytest.raises(OptionError, match="has no option 'resume' here"):
        forms.taken(technique, {"resume": "x.state"})
