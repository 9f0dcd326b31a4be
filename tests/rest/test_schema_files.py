"""Actions from files in a folder, read when the server starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.rest import Rest

pytestmark = [pytest.mark.real]

YAML = """
Tables:
  - TableName: ignored
Actions:
  - Name: from_yaml
    Label: Say it
    OnType: world
    InstanceOptional: true
    InFields:
      - {Name: word, ColumnName: word, ColumnType: label}
    OutFields:
      - Type: client.notify
        Method: ACTIONRESPONSE
        Attributes: {message: "!word + '!'", title: T, type: success}
"""
TOML = """
[[Actions]]
Name = "from_toml"
OnType = "world"
InstanceOptional = true
Permission = 2085152
[[Actions.OutFields]]
Type = "client.notify"
Method = "ACTIONRESPONSE"
Attributes = {message = "toml"}
"""
JSON = json.dumps(
    {
        "actions": [
            {
                "name": "from_json",
                "ontype": "mail_server",
                "outfields": [{"type": "client.notify", "attributes": {"message": "$.hostname"}}],
            }
        ]
    }
)


def message(answer):
    assert answer.status == 200, answer
    return answer.json[0]["Attributes"]["message"]


@pytest.mark.mission("DAP-160")
def test_actions_of_a_folder_are_callable(make_fresh, tmp_path):
    folder = tmp_path / "schemas"
    folder.mkdir()
    (folder / "schema_say.yaml").write_text(YAML)
    (folder / "schema_b.toml").write_text(TOML)
    (folder / "schema_c.json").write_text(JSON)
    (folder / "other.yaml").write_text("Actions: 5")
    server = make_fresh()
    server.environment = {"DAPTIN_SCHEMA_FOLDER": str(folder)}
    server.start()
    admin = Rest(server.ports["http"]).become_administrator()
    assert message(admin.act("world", "from_yaml", {"word": "hi"})) == "hi!"
    assert admin.act("world", "from_yaml").status == 400
    assert message(admin.act("world", "from_toml")) == "toml"
    # Without InstanceOptional a row is needed, as it was in the program these files come from.
    assert admin.act("mail_server", "from_json").status == 400
    row = admin.make("mail_server", {"hostname": "a.example.com"})
    assert message(admin.act("mail_server", "from_json", {"mail_server_id": row["id"]})) == (
        "a.example.com"
    )
    (kept,) = admin.rows("action", ("action_name", "is", "from_toml")).data
    admin.change("action", kept["id"], permission=2085120)

    (folder / "schema_b.toml").write_text(TOML.replace('"toml"', '"changed"'))
    server.restart()
    admin = Rest(server.ports["http"], admin.token)
    assert message(admin.act("world", "from_toml")) == "changed"
    (again,) = admin.rows("action", ("action_name", "is", "from_toml")).data
    assert again["id"] == kept["id"]
    assert again["attributes"]["permission"] == 2085120, "which is the administrator's to set"


@pytest.mark.mission("DAP-160")
def test_the_folder_where_the_server_starts_counts_when_nobody_else_writes_there(make_server):
    server = make_server()
    (server.folder / "schema_own.yaml").write_text(YAML)
    loose = server.folder / "schema_loose.toml"
    loose.write_text(TOML)
    loose.chmod(0o666)
    server.start()
    admin = Rest(server.ports["http"]).become_administrator()
    assert message(admin.act("world", "from_yaml", {"word": "hi"})) == "hi!"
    assert admin.act("world", "from_toml").status == 404


def test_expressions_see_the_variables_that_are_named_and_no_others(make_server):
    server = make_server(actions={"env": ["SHOP_URL", "NOT_THERE"]})
    server.environment = {"SHOP_URL": "https://shop.example", "SHOP_KEY": "hidden"}
    text = YAML.replace("!word + '!'", "!JSON.stringify(env) + ' $env'")
    (server.folder / "schema_own.yaml").write_text(text)
    server.start()
    admin = Rest(server.ports["http"]).become_administrator()
    told = message(admin.act("world", "from_yaml", {"word": "hi"}))
    assert told == '{"SHOP_URL":"https://shop.example"} $env'


@pytest.mark.parametrize(
    "name, text, reason",
    [
        ("schema_a.yaml", "Actions: {}", "schema_a.yaml: Actions: a list"),
        ("schema_a.yaml", "Actions: [", "schema_a.yaml: cannot be read"),
        ("schema_a.json", "[]", "schema_a.json: keys and values"),
        ("schema_a.yaml", "Actions: [5]", "schema_a.yaml: Actions[0]: action_schema: an object"),
        ("schema_a.toml", TOML.replace("world", "nope"), "OnType: there is no table nope"),
        ("schema_a.toml", TOML.replace("from_toml", "become_an_administrator"), "is built in"),
        ("schema_a.toml", TOML + TOML, "defined twice"),
        ("schema_a.toml", "[[Actions]]\nName = 'a'\nOnType = 'world'", "OutFields is missing"),
        ("schema_a.toml", "[[Actions]]\nOnType = 'world'", "Name is missing"),
        ("schema_a.toml", TOML.replace("2085152", "-1"), "Permission"),
    ],
)
def test_a_file_that_is_wrong_is_named_and_the_server_does_not_start(
    tmp_path: Path, name, text, reason
):
    from mailtwist.actions import schema_files
    from mailtwist.errors import ConfigError

    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        schema_files.read(str(tmp_path))
    assert reason in caught.value.text
    assert name in caught.value.text


def test_a_folder_that_is_named_must_be_there(tmp_path):
    from mailtwist.actions import schema_files
    from mailtwist.errors import ConfigError

    with pytest.raises(ConfigError, match=r"actions\.schema_folder"):
        schema_files.read(str(tmp_path / "nothing"))
    assert schema_files.read(str(tmp_path)) == ()
