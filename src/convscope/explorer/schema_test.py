"""The API holds what its own OpenAPI description says, whatever is asked."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from convscope.explorer.conftest import ADDRESS

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
pytestmark = pytest.mark.slow
STREAM = "/api/jobs/{job}/events"  # lasts as long as the job
OURS = {"host": "127.0.0.1:8765"}  # what the guard lets through


def test_every_answer_is_one_that_is_described(client: TestClient) -> None:
    """Of each operation a few requests that the description allows, and some that it does not."""
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", client.app, headers=OURS)
    operations = [found.ok() for found in schema.get_all_operations() if found.ok().path != STREAM]
    assert len(operations) > 20
    for operation in operations:
        described = set(operation.definition.raw["responses"]) | {"422"}
        for mode in schemathesis.GenerationMode:
            _asked(operation.as_strategy(generation_mode=mode), described, f"{operation.label}, {mode}")


def _asked(requests: Any, described: set[str], label: str) -> None:
    @hypothesis.settings(
        max_examples=3, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=requests)
    def check(case: Any) -> None:
        answer = case.call(headers=OURS, base_url=ADDRESS)
        known = described | {"404", "405"}  # paths that lead elsewhere, such as those with a slash in a name
        assert str(answer.status_code) in known, f"{label}: {answer.status_code} {answer.text[:300]}"
        if answer.status_code >= 400:
            assert answer.json()["detail"]

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing that it forbids can be said in this place
        check()
