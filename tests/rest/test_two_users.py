"""Two users at random, and a model of what each may know: their data never mix."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pytest

from tests.e2e import mails
from tests.support.rest import Answer, User

pytestmark = [pytest.mark.real, pytest.mark.slow]

STEPS = 150
ENTITIES = ("mail_account", "mail_box", "mail", "outbox", "credential", "api_key")


@dataclass
class Person:
    user: User
    account: str
    address: str
    word: str  # stands in all that is his, and in nothing else
    mails: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)

    def ids(self) -> dict[str, list[str]]:
        return {
            "mail": sorted(self.mails),
            "mail_account": [self.account],
            "mail_box": sorted(self.user.boxes(self.account).values()),
        }


class Story:
    def __init__(self, server: Any, admin: Any, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.people = []
        for word in ("aardvark", "zebrafinch"):
            user = admin.user()
            account, address = user.account(f"{word}{seed}")
            self.people.append(Person(user, account, address, f"{word}{seed}"))
        self.log: list[str] = []

    def run(self, steps: int) -> None:
        for _ in range(steps):
            me, other = self.chance.sample(self.people, 2)
            name = self.chance.choice(STEPS_BY_NAME)
            self.log.append(f"{name} {me.word}")
            getattr(self, name)(me, other)
        for me, other in (self.people, self.people[::-1]):
            self.look_at_lists(me, other)
            self.look_at_my_mails(me, other)

    def clean(self, answer: Answer, other: Person) -> Answer:
        assert answer.status < 500, (self.log[-5:], answer)
        assert other.word.encode() not in answer.body, (self.log[-5:], answer)
        return answer

    # -- the steps --------------------------------------------------------------------------

    def receive(self, me: Person, other: Person) -> None:
        subject = f"{me.word} {len(self.log)}"
        before = set(me.mails)
        self.server.send(me.address, mails.simple(subject, to=me.address))
        found = set(me.user.inbox(me.account).ids) | self.all_mine(me)
        (new,) = found - before - me.removed
        me.mails.add(new)

    def all_mine(self, me: Person) -> set[str]:
        answer = me.user.get("/api/mail", {"page[size]": 1000})
        assert answer.total == len(answer.ids)
        return set(answer.ids)

    def flag(self, me: Person, other: Person) -> None:
        if me.mails:
            id = self.chance.choice(sorted(me.mails))
            seen = self.chance.random() < 0.5
            assert me.user.change("mail", id, seen=seen)["attributes"]["seen"] is seen

    def remove(self, me: Person, other: Person) -> None:
        if len(me.mails) > 3:
            id = self.chance.choice(sorted(me.mails))
            assert me.user.remove("mail", id).status == 200
            me.mails.discard(id)
            me.removed.add(id)

    def look_at_my_mails(self, me: Person, other: Person) -> None:
        assert self.all_mine(me) == me.mails

    def look_at_lists(self, me: Person, other: Person) -> None:
        for entity in ENTITIES:
            query = {"page[size]": 1000, "fields": ""} if self.chance.random() < 0.1 else {}
            answer = self.clean(me.user.get(f"/api/{entity}", query), other)
            if answer.status == 200:
                assert not set(answer.ids) & set(chain.from_iterable(other.ids().values()))

    def search(self, me: Person, other: Person) -> None:
        entity = self.chance.choice(("mail", "mail_box", "mail_account", "outbox"))
        column, wanted = self.chance.choice(
            [
                ("reference_id", self.chance.choice(other.ids()["mail"] or [other.account])),
                ("subject", f"%{other.word}%"),
                ("recipient", other.address),
                ("username", other.address),
                ("mail_account_id", other.account),
                ("mail_box_id", other.ids()["mail_box"][0]),
                ("from_address", "%"),
                ("user_account_id", other.user.id),
            ]
        )
        operator = self.chance.choice(("is", "contains", "in", "is not", "any of", "gt", "lt"))
        value = [wanted] if operator in {"in", "any of"} else wanted
        more = {"filter": other.word} if self.chance.random() < 0.2 else {}
        answer = me.user.rows(entity, (column, operator, value), **more)
        if answer.status == 200:
            assert not set(answer.ids) & set(other.ids().get(entity, []))
            assert answer.total <= max(len(me.mails), 6)
            self.clean_rows(answer, other)

    def clean_rows(self, answer: Answer, other: Person) -> None:
        assert other.word not in str(answer.data)
        assert other.word not in str(answer.json.get("included", ""))

    def page_from_theirs(self, me: Person, other: Person) -> None:
        """A cursor of the other's row tells nothing of it."""
        for id in other.ids()["mail"][:1]:
            for name in ("page[after]", "page[before]"):
                self.clean(me.user.get("/api/mail", {name: id}), other)

    def open_theirs(self, me: Person, other: Person) -> None:
        entity = self.chance.choice(("mail", "mail_account", "mail_box"))
        for id in other.ids()[entity][:3]:
            relation = self.chance.choice(
                ("", "/mail_box_id", "/mail_id", "/mail_account_id", "/relationships/mail_box_id")
            )
            answer = self.clean(me.user.get(f"/api/{entity}/{id}{relation}"), other)
            assert answer.status in {403, 404}, (self.log[-5:], answer)

    def change_theirs(self, me: Person, other: Person) -> None:
        entity = self.chance.choice(("mail", "mail_account", "mail_box"))
        id = self.chance.choice(other.ids()[entity] or [other.account])
        given: dict[str, Any] = self.chance.choice(
            [{"seen": True}, {"name": "Mine"}, {"user_account_id": me.user.id}, {"permission": 127}]
        )
        for answer in (me.user.patch(entity, id, given), me.user.remove(entity, id)):
            assert answer.status in {400, 403, 404}, (self.log[-5:], answer)
            self.clean(answer, other)

    def take_theirs_along(self, me: Person, other: Person) -> None:
        """Own rows that are to point at the other's."""
        if me.mails:
            mine = sorted(me.mails)[0]
            theirs = other.ids()["mail_box"][0]
            answer = self.clean(me.user.patch("mail", mine, {"mail_box_id": theirs}), other)
            assert answer.status in {400, 403, 404}, answer
            shown = me.user.row("mail", mine, {"included_relations": "mail_box_id"})
            box = shown["relationships"]["mail_box_id"]["data"]["id"]
            assert box in me.ids()["mail_box"]

    def status_of_theirs(self, me: Person, other: Person) -> None:
        given = {"mail_account_id": other.account}
        answer = me.user.act("mail_box", "status", {"attributes": given})
        assert other.word not in answer.text


STEPS_BY_NAME = [
    *["receive"] * 3,
    *["flag", "remove", "search", "search", "open_theirs", "change_theirs"],
    *["look_at_lists", "look_at_my_mails", "page_from_theirs", "take_theirs_along"],
    "status_of_theirs",
]


@pytest.mark.mission("DAP-017", "DAP-073")
@pytest.mark.parametrize("seed", [1, 2])
def test_their_data_never_mix(server, admin, seed):
    Story(server, admin, seed).run(STEPS)
