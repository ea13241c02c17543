"""Sittings of a person at the page: what is asked, what is told when, and the table that comes of it."""

from __future__ import annotations

import csv
import io
from typing import Any

import torch
from PIL import Image
from starlette.testclient import TestClient

from convscope.behaviour.scoring import WITH
from convscope.explorer.conftest import png


def begun(client: TestClient, **asked: Any) -> dict[str, Any]:
    for seed in range(4):
        client.post(f"/api/pictures?title=picture{seed}", content=png(seed))
    return dict(client.post("/api/studies", json={"kind": "predict", "limit": 4, **asked}).json())


def test_a_guess_is_scored_and_told_only_afterwards(client: TestClient, desk: Any) -> None:
    told = begun(client)
    assert (told["number"], told["count"], told["scores"]) == (0, 4, [])
    explained = 0
    for number in range(4):
        question = desk.sitting(told["id"]).study.questions[number]
        with torch.no_grad():
            best = int(desk.network(question.picture[None]).argmax())
        assert question.right == desk.network.label(best)
        assert sorted(told["names"]) == ["ant", "bee", "cat", "dog_fish"]
        assert "right" not in client.get(f"/api/studies/{told['id']}").json()
        shown = Image.open(io.BytesIO(client.get(f"/api/studies/{told['id']}/{number}.png").content))
        wide = shown.width > 1.5 * shown.height
        assert wide == told["explained"] == (question.condition == WITH)
        explained += wide
        answer = question.right if number else next(name for name in question.names if name != question.right)
        told = client.post(f"/api/studies/{told['id']}/{number}", json={"answer": answer, "seconds": 1.5}).json()
        assert told["correct"] == bool(number)
    assert explained == 2
    assert any("of 2 guessed" in line for line in told["scores"])
    rows = list(csv.DictReader(io.StringIO(client.get(f"/api/studies/{told['id']}/answers.csv").text)))
    assert [row["object_response"] == row["category"] for row in rows] == [False, True, True, True]
    assert {row["rt"] for row in rows} == {"1.500"}


def test_only_the_open_question_takes_one_of_its_names(client: TestClient) -> None:
    told = begun(client)
    at = f"/api/studies/{told['id']}"
    assert client.post(f"{at}/1", json={"answer": "ant"}).status_code == 422
    assert client.post(f"{at}/0", json={"answer": "unicorn"}).status_code == 422
    assert client.get(f"{at}/1.png").status_code == 404
    assert client.get("/api/studies/nothing").status_code == 404


def test_what_cannot_be_asked_is_said(client: TestClient) -> None:
    label = client.post("/api/studies", json={"kind": "label"})
    assert "convscope explore PHOTOS.index" in label.json()["detail"]
    other = client.post("/api/studies", json={"kind": "predict", "method": "saliencies"})
    assert "did you mean 'saliency'" in other.json()["detail"]
