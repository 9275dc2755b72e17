"""The REST API: every input gets an answer that names the problem, and TCP needs the token."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.local_cloud_rig import LocalCloud, local_cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with local_cloud(tmp_path_factory.mktemp("lc")) as running:
        yield running


@pytest.fixture(scope="module")
def agent_id(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    return cloud.enrol(tmp_path_factory.mktemp("mtls"))


def over_tcp(cloud: LocalCloud, method: str, path: str, token: str | None, **more: Any) -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.request(method, cloud.api_url + path, headers=headers, verify=str(cloud.ca), timeout=5, **more)


def test_the_index_names_the_end_points(cloud: LocalCloud) -> None:
    status, index = cloud.ask("GET", "/")
    assert status == 200 and "POST /api/agents/{id}/kick" in index["endpoints"]
    index = over_tcp(cloud, "GET", "/", None).json()
    assert "GET /api/agents" in index["endpoints"] and "POST /api/agents/{id}/kick" not in index["endpoints"]


def test_health_says_where_the_ports_are(cloud: LocalCloud, agent_id: str) -> None:
    status, health = cloud.ask("GET", "/api/health")
    assert status == 200 and health["status"] == "ok" and health["agents_known"] == 1
    assert health["listening"] == {"agents": cloud.agents_url, "api": cloud.api_url}


def test_over_tcp_the_api_token_is_needed(cloud: LocalCloud, agent_id: str) -> None:
    for token in (None, "", "wrong", cloud.token("enrol")):
        response = over_tcp(cloud, "GET", "/api/agents", token)
        assert response.status_code == 401 and response.json()["code"] == "refused"
    assert over_tcp(cloud, "GET", "/api/nothing", None).status_code == 401
    agents = over_tcp(cloud, "GET", "/api/agents", cloud.token("api")).json()["agents"]
    assert [agent["id"] for agent in agents] == [agent_id]


def test_raw_payloads_are_not_for_tcp(cloud: LocalCloud, agent_id: str) -> None:
    body = {"topic": "x", "payload": [], "raw": True}
    response = over_tcp(cloud, "POST", f"/api/agents/{agent_id}/commands", cloud.token("api"), json=body)
    assert response.status_code == 403 and "unix socket" in response.json()["error"]


@pytest.mark.parametrize(
    "body, what",
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 100_000, "body"),
        (b"[]", "object"),
        ({}, "topic"),
        ({"topic": 5}, "$.topic"),
        ({"topic": ""}, "topic"),
        ({"topic": "no spaces"}, "topic"),
        ({"topic": "x" * 65}, "topic"),
        ({"topic": "stop_device", "payload": []}, "payload"),
        ({"topic": "stop_device", "payload": None}, "payload"),
        ({"topic": "stop_device", "timeout_s": 0}, "timeout_s"),
        ({"topic": "stop_device", "timeout_s": 1e9}, "timeout_s"),
        ({"topic": "stop_device", "timeout_s": "5"}, "$.timeout_s"),
        ({"topic": "stop_device", "paylod": {}}, "paylod"),
        ({"topic": "stop_device", "raw": 1}, "$.raw"),
    ],
)
def test_a_bad_command_is_refused_by_name(cloud: LocalCloud, agent_id: str, body: Any, what: str) -> None:
    status, answer = cloud.ask("POST", f"/api/agents/{agent_id}/commands", body)
    assert status == 400 and answer["code"] == "invalid" and what in answer["error"], answer


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e3", "9" * 5000])
def test_a_bad_limit_is_refused(cloud: LocalCloud, limit: str) -> None:
    status, answer = cloud.ask("GET", f"/api/commands?limit={limit}")
    assert status == 400 and "limit" in answer["error"]


def test_what_is_not_there_says_so(cloud: LocalCloud) -> None:
    for method, path, expected in (
        ("GET", "/nothing", 404),
        ("DELETE", "/api/agents", 405),
        ("GET", "/api/agents/nobody", 404),
        ("GET", "/api/agents/nobody/events", 404),
        ("POST", "/api/agents/nobody/kick", 404),
        ("GET", "/api/agents/..%2f..%2fetc", 404),
    ):
        status, answer = cloud.ask(method, path)
        assert status == expected and answer["error"] and answer["code"] in ("not_found", "invalid")


def test_a_body_beyond_the_limit_is_refused(cloud: LocalCloud, agent_id: str) -> None:
    status, answer = cloud.ask("POST", f"/api/agents/{agent_id}/commands", b" " * (16 * 1024 * 1024 + 1))
    assert status == 413 and answer["code"] == "invalid"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=json_values | st.fixed_dictionaries({"topic": json_values, "payload": json_values, "timeout_s": json_values})
)
def test_no_body_makes_the_server_fail(cloud: LocalCloud, agent_id: str, body: Any) -> None:
    status, answer = cloud.ask("POST", f"/api/agents/{agent_id}/commands", body)
    assert status in (400, 409) and answer["error"]
