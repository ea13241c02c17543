"""Runs of techniques: their results, their progress, and what happens to those that do not end well."""

from __future__ import annotations

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import convscope
from convscope.explorer.app import create_app
from convscope.explorer.conftest import ADDRESS, ended, until
from convscope.explorer.settings import Settings

pytestmark = pytest.mark.slow
LONG = {"steps": 20_000, "size": 32, "crops": 1, "target": "ant"}


def run(client: TestClient, technique: str, pictures: list[str] | None = None, **options: Any) -> dict[str, Any]:
    wanted = {"technique": technique, "options": options, "pictures": pictures or []}
    answer = client.post("/api/jobs", json=wanted)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_a_run_gives_what_a_direct_call_gives_and_is_remembered(client: TestClient, desk: Any, picture: str) -> None:
    job = ended(client, run(client, "saliency", [picture], target="cat"))
    assert (job["state"], job["error"]) == ("done", "")
    expected = convscope.saliency(desk.network, desk.pictures.image(picture), target="cat")
    with np.load(io.BytesIO(client.get(f"/api/results/{job['result']}/result.npz").content)) as saved:
        np.testing.assert_allclose(saved["values"], expected.numpy(), rtol=1e-5, atol=1e-7)
    fragment = client.get(f"/api/results/{job['result']}/result.html").text
    assert "<figure" in fragment
    assert "<script" not in fragment
    assert client.get(f"/api/results/{job['result']}/result.png").content.startswith(b"\x89PNG")
    said = client.get(f"/api/results/{job['result']}/result.json").json()
    assert said["provenance"]["technique"] == "saliency"
    assert job["command"].startswith("convscope saliency noise.png --target cat --network")
    assert "convscope.saliency(network, image, target='cat').save(\"saliency.png\")" in job["python"]
    again = run(client, "saliency", [picture], target="cat")
    assert (again["state"], again["result"]) == ("done", job["result"])


def test_random_weights_stand_beside_on_one_scale(client: TestClient, picture: str) -> None:
    wanted = {"technique": "saliency", "options": {}, "pictures": [picture], "control": True}
    job = ended(client, client.post("/api/jobs", json=wanted).json())
    assert job["error"] == ""
    with np.load(io.BytesIO(client.get(f"/api/results/{job['result']}/result.npz").content)) as saved:
        assert len(saved["values"]) == 2
        assert not np.allclose(saved["values"][0], saved["values"][1])
    text = client.get(f"/api/results/{job['result']}/result.html").text
    assert "All maps are on one scale" in text
    assert "with random weights" in text


def test_an_optimisation_is_watched_halted_gone_on_with_and_stopped(client: TestClient) -> None:
    job = run(client, "visualize", **LONG)
    at = f"/api/jobs/{job['id']}"
    until(lambda: client.get(at).json()["frames"] >= 2)
    assert client.get(f"{at}/frame").content.startswith(b"\xff\xd8")
    client.post(at, json={"word": "pause"})
    until(lambda: client.get(at).json()["state"] == "paused")
    steps = client.get(at).json()["steps"]
    assert len(client.get(at).json()["trace"]) > 1
    client.post(at, json={"word": "resume"})
    until(lambda: client.get(at).json()["steps"] > steps)
    client.post(at, json={"word": "cancel"})
    stopped = ended(client, job)
    assert (stopped["state"], stopped["stopped"]) == ("done", True)
    assert any("stopped after" in note for note in stopped["notes"])
    wanted = {"technique": "visualize", "options": {**LONG, "steps": stopped["steps"] + 3}, "resume": job["id"]}
    finished = ended(client, client.post("/api/jobs", json=wanted).json())
    assert (finished["state"], finished["stopped"], finished["error"]) == ("done", False, "")
    assert finished["steps"] == stopped["steps"] + 3  # counted from the first one's


def test_events_tell_it_to_its_end(client: TestClient, picture: str) -> None:
    job = run(client, "gradcam", [picture])
    with client.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
        told = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done"
    fractions = [each["fraction"] for each in told]
    assert fractions == sorted(fractions)


@pytest.mark.parametrize(
    ("wanted", "status", "said"),
    [
        ({"technique": "saliencies"}, 404, "did you mean 'saliency'"),
        ({"technique": "saliency"}, 422, "needs a picture"),
        ({"technique": "filters", "pictures": ["PICTURE"]}, 422, "takes no pictures"),
        ({"technique": "saliency", "pictures": ["0" * 32]}, 404, "not there any more"),
        ({"technique": "saliency", "pictures": ["/etc/passwd"]}, 422, "is no picture"),
        ({"technique": "visualize", "options": {"resume": "/etc/passwd"}}, 422, "has no option 'resume' here"),
        ({"technique": "visualize", "options": {"direction": "/etc/passwd"}}, 422, "has no option 'direction' here"),
        ({"technique": "visualize", "options": {"photograph": "/etc/passwd"}}, 422, "is no picture"),
        ({"technique": "stylize", "pictures": ["PICTURE"], "options": {"style": "/etc/passwd"}}, 422, "is one of"),
        ({"technique": "visualize", "options": {"steps": -3}}, 422, "steps"),
        ({"technique": "visualize", "resume": "0123"}, 422, "no stopped run"),
        ({"technique": "filters", "control": True}, 422, "no heat map"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    client: TestClient, picture: str, wanted: dict[str, Any], status: int, said: str
) -> None:
    wanted = {**wanted, "pictures": [picture if name == "PICTURE" else name for name in wanted.get("pictures", [])]}
    answer = client.post("/api/jobs", json=wanted)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


def test_an_error_of_a_technique_is_its_sentence(client: TestClient, picture: str) -> None:
    job = ended(client, run(client, "saliency", [picture], target="unicorn"))
    assert job["state"] == "failed"
    assert "unicorn" in job["error"]


def test_a_full_queue_says_so_and_waiting_runs_can_be_cancelled(client: TestClient) -> None:
    jobs = [run(client, "visualize", **{**LONG, "seed": seed}) for seed in range(4)]
    full = client.post("/api/jobs", json={"technique": "visualize", "options": {**LONG, "seed": 9}})
    assert full.status_code == 503
    for job in reversed(jobs):
        client.post(f"/api/jobs/{job['id']}", json={"word": "cancel"})
    assert all(ended(client, job)["state"] in ("cancelled", "done") for job in jobs)


def test_a_killed_worker_fails_its_run_and_the_next_one_gets_a_new_worker(
    client: TestClient, desk: Any, picture: str
) -> None:
    job = run(client, "visualize", **{**LONG, "seed": 77})
    until(lambda: client.get(f"/api/jobs/{job['id']}").json()["steps"] > 0)
    os.kill(desk.jobs._process.pid, signal.SIGKILL)
    told = ended(client, job)
    assert (told["state"], "was ended" in told["error"]) == ("failed", True)
    assert ended(client, run(client, "gradcam", [picture], target="bee"))["state"] == "done"


def test_what_takes_too_long_or_too_much_memory_is_ended(settings: Settings, tmp_path: Path) -> None:
    short = replace(settings, seconds=0.5, cache=tmp_path / "a")
    with TestClient(create_app(short), base_url=ADDRESS) as client:
        assert "after 0.5 seconds" in ended(client, run(client, "visualize", **LONG))["error"]
    small = replace(settings, memory=100_000_000, cache=tmp_path / "b")
    with TestClient(create_app(small), base_url=ADDRESS) as client:
        assert "GiB of memory" in ended(client, run(client, "visualize", **LONG))["error"]
