from __future__ import annotations

import json

import pytest
import schemathesis
import yaml

from mailtwist.http import meta, schemas
from mailtwist.http.openapi import description
from mailtwist.store.entities import ENTITIES
from mailtwist.store.entities.model import Type
from tests.http.asking import Server


@pytest.fixture(scope="module")
def document():
    return description(ENTITIES.values())


def test_the_document_validates(document):
    schemathesis.openapi.from_dict(document).validate()


@pytest.mark.mission("DAP-055")
def test_it_is_served_as_yaml_and_as_json(document):
    server = Server()
    as_yaml = server.answer("GET", "/openapi.yaml")
    assert as_yaml.status == 200
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    as_json = server.answer("GET", "/openapi.json")
    assert yaml.safe_load(as_yaml.body) == as_json.json == json.loads(json.dumps(document))
    assert {"/api/mail_server", "/api/mail_server/{id}"} <= set(as_json.json["paths"])


@pytest.mark.parametrize("name", sorted(ENTITIES))
def test_each_entity_has_its_paths(document, name):
    entity, paths = ENTITIES[name], document["paths"]
    listed, one = paths[f"/api/{name}"], paths[f"/api/{name}/{{id}}"]
    assert "get" in listed
    assert "get" in one
    assert ("post" in listed) is (entity.create is not None)
    assert ("patch" in one) is (entity.update is not None)
    assert ("delete" in one) is (entity.delete is not None)
    for relation in entity.relations:
        assert f"/api/{name}/{{id}}/{relation}" in paths


@pytest.mark.parametrize("name", sorted(ENTITIES))
def test_secrets_are_written_and_never_read(document, name):
    shown = document["components"]["schemas"][name]["properties"]["attributes"]["properties"]
    for column in ENTITIES[name].columns.values():
        assert (column.name in shown) is (column.type is not Type.SECRET)


def test_every_reference_leads_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    found = set(references(document))
    assert found
    for reference in found:
        _, _, kind, name = reference.split("/")
        assert name in document["components"][kind], reference


def test_every_type_of_a_column_is_described():
    assert set(schemas._OUT) == set(meta._NAMES) == set(Type)


def test_meta_describes_entities_and_types():
    server = Server()
    everything = server.answer("GET", "/meta").json
    assert set(everything) == set(ENTITIES)
    one = server.answer("GET", "/meta?query=mail_account").json
    assert one == everything["mail_account"]
    assert one == server.answer("GET", "/jsmodel/mail_account.js").json
    model = one["ColumnModel"]
    assert model["username"]["ColumnType"] == "label"
    assert model["password"]["ExcludeFromApi"] is True
    assert model["mail_server_id"]["type"] == "mail_server"
    assert model["mail_box_id"]["jsonApi"] == "hasMany"
    assert "truefalse" in server.answer("GET", "/meta?query=column_types").json
    assert server.answer("GET", "/jsmodel/nope").status == 404
