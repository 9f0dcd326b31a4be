"""Requests made from the OpenAPI document, good and bad, against a running server."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from mailtwist.http.openapi import description
from mailtwist.store.entities import ENTITIES
from tests.e2e.server import Server
from tests.support.rest import SECRET, Rest

# A request of a few hundred octets that keeps us busier than this is a way to keep us busy.
SLOW_S = 2.0
EXAMPLES = 8

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("schemathesis"), dev_mode=True) as running:
        yield running
    assert [each for each in running.events if "log_failure" in each or "traceback" in each] == []
    running.check()


@pytest.fixture(scope="module")
def admin(server):
    admin = Rest(server.ports["http"]).become_administrator()
    answer = admin.post("/_config/backend/limit.rate", b'{"default": 0}')
    assert answer.status == 200, answer
    return admin


@pytest.fixture(scope="module")
def rows(admin) -> dict[str, str]:
    """A row of each entity, which is not what the administrator needs to go on."""
    made: dict[str, str] = {}

    def make(entity: str, attributes: dict[str, Any], relationships: Any = None) -> None:
        made[entity] = admin.make(entity, attributes, relationships)["id"]

    make("user_account", {"name": "b", "email": "b@people.example", "password": SECRET})
    make("usergroup", {"name": "friends"})
    make("mail_server", {"hostname": "mail.example.com"})
    make("mail_account", {"username": "b@example.com", "password": SECRET})
    account = ("mail_account", made["mail_account"])
    make("mail_box", {"name": "Post"}, {"mail_account_id": account})
    raw = base64.b64encode(b"From: a@x.org\r\nSubject: Hello\r\n\r\nText\r\n").decode()
    make("mail", {"mail": raw}, {"mail_box_id": ("mail_box", made["mail_box"])})
    make("domain", {"name": "example.net"})
    make("certificate", {"hostname": "mail.example.com"})
    make("credential", {"name": "key", "content": "{}"})
    for entity in ENTITIES:
        if entity not in made:
            found = admin.rows(entity).data
            made[entity] = found[0]["id"] if found else ""
    return made


SCHEMA = schemathesis.openapi.from_dict(description(ENTITIES.values()))
# An answer that goes on for ever, or waits, is tried in tests of its own.
ENDLESS = frozenset({"/events", "/emails/{name}/wait"})
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}


def test_every_operation_is_here():
    assert len(OPERATIONS) > 3 * len(ENTITIES)


@pytest.mark.slow
@pytest.mark.parametrize("tag", [*sorted(ENTITIES), ""])
def test_no_request_breaks_the_server(admin, rows, tag):
    """``tag``: an entity; empty: what belongs to none."""
    operations = [
        each
        for each in OPERATIONS.values()
        if (each.tags or [""])[0] == tag and each.path not in ENDLESS
    ]
    of_relations = [each for each in operations if "{id}/" in each.path]
    # Those of one entity differ in nothing that a request could break.
    operations = [each for each in operations if each not in of_relations[1:]]
    assert operations
    for operation in operations:
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not _takes_anything(operation):
                continue
            _fuzz(operation, mode, admin, rows.get(tag, ""))


def _takes_anything(operation: Any) -> bool:
    """Whether there is anything to get wrong."""
    return bool(operation.path_parameters or operation.query or operation.body)


def _name(body: Any, row_id: str) -> None:
    """The id in a document must be that of the address."""
    data = body.get("data") if isinstance(body, dict) else None
    if isinstance(data, dict) and "id" in data:
        data["id"] = row_id


def _fuzz(operation: Any, mode: GenerationMode, rest: Rest, row_id: str) -> None:
    cases = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, is_real=st.booleans())
    def ask(case: Any, is_real: bool) -> None:
        if is_real and row_id and "id" in (case.path_parameters or {}) and case.method != "DELETE":
            case.path_parameters["id"] = row_id
            _name(case.body, row_id)
        began = time.monotonic()
        response = case.call(
            base_url=f"http://127.0.0.1:{rest.port}",
            headers={"Authorization": f"Bearer {rest.token}"},
            timeout=30,
        )
        assert time.monotonic() - began < SLOW_S, case.as_curl_command()
        case.validate_response(response, checks=CHECKS)

    ask()
