from __future__ import annotations

from dataclasses import replace

import pytest

from mailtwist.config import Listener
from mailtwist.control.plan import Problem, differences, plan

A = Listener(name="row/a", protocol="smtp", host="127.0.0.1", port=25, hostname="a.example")
B = replace(A, name="row/b", port=26, label="b.example")
C = replace(A, name="file/c", port=27)


def said(steps):
    return [(each.action, each.listener.name, each.changed) for each in steps]


def test_what_is_new_opens_what_is_gone_closes_what_differs_changes():
    changed = replace(A, max_clients=3, port=250)
    found = plan([C, changed], [A, B, C])
    assert said(found.steps) == [
        ("keep", "file/c", ()),
        ("change", "row/a", ("address", "max_clients")),
        ("close", "row/b", ()),
    ]
    assert found.opens == ()
    assert found.closes == (B,)
    assert found.unchanged == (C,)
    assert found.changes == {"row/a": ("address", "max_clients")}
    assert found.wanted == (C, changed)
    assert not found.is_empty
    assert plan([B], []).opens == (B,)


def test_what_runs_as_it_shall_is_an_empty_plan():
    assert plan([A, B], [B, A]).is_empty
    assert plan([], []).is_empty
    assert not plan([A], [A], [Problem(("row/x",), "x")]).is_empty


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("protocol", "imap", "protocol"),
        ("host", "", "address"),
        ("port", 1, "address"),
        ("hostname", "x.example", "hostname"),
        ("label", "x.example", "name"),
        ("max_clients", 1, "max_clients"),
        ("max_size", 1, "max_size"),
        ("authentication_required", True, "authentication_required"),
        ("optional_login", True, "authentication_required"),
        ("xclient_on", True, "xclient_on"),
    ],
)
def test_differences_have_the_names_that_people_know(field, value, said):
    assert differences(A, replace(A, **{field: value})) == (said,)
    assert differences(A, A) == ()


def test_a_report_tells_what_was_done():
    found = plan([C, replace(A, max_size=9)], [A, B]).done()
    assert said(found) == [
        ("opened", "file/c", ()),
        ("changed", "row/a", ("max_size",)),
        ("closed", "row/b", ()),
    ]


def test_a_refused_plan_tells_who_is_at_fault_and_that_all_else_stays():
    problems = [
        Problem(("row/d", "row/e"), "d and e clash"),
        Problem(("row/e",), "e is busy"),
        Problem(("row/f",), "f is nonsense", label="f.example"),
    ]
    d, e, new = (replace(A, name=name, port=40) for name in ("row/d", "row/e", "row/n"))
    found = plan([d, e, new, replace(A, max_size=9), C], [A, B, C, d], problems)
    report = {each.listener.name: each for each in found.refused(problems)}
    assert {name: each.action for name, each in report.items()} == {
        "row/d": "failed",
        "row/e": "failed",
        "row/f": "failed",
        "row/n": "failed",
        "row/a": "kept",
        "row/b": "kept",
        "file/c": "kept",
    }
    assert report["row/d"].reason == "d and e clash"
    assert report["row/e"].reason == "d and e clash; e is busy"
    assert report["row/f"].listener.title == "f.example"
    assert report["row/n"].reason
    assert not report["row/a"].changed


def test_a_step_is_shown_by_what_people_call_its_listener():
    (step,) = plan([B], []).steps
    assert step.document() == {
        "action": "open",
        "name": "b.example",
        "source": "row/b",
        "protocol": "smtp",
        "address": "127.0.0.1:26",
        "changed": [],
        "reason": "",
    }
