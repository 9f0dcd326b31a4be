"""Templates: what they make of values, what they never reach, and what bombs cost others."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mailtwist.actions.rendering import MAX_TEMPLATE, Rendering
from mailtwist.errors import ExpressionError, ProtocolViolation, TemporaryFailure

pytestmark = [pytest.mark.reactor]

BOMBS = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{{ 'a' * 10**10 }}",
    "width": "{{ 'a'|center(10**9) }}",
    "number": "{{ 9 ** (9 ** 9) }}",
    "result": "{{ 'ab' * 10**6 }}",
    "nesting": "{{" + "(" * 20000 + "1" + ")" * 20000 + "}}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "regular": "{{ ('a' * 100000)|urlize }}" * 100,
}
REACHING = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ name.format.__globals__ }}",
    "{{ '{0.__class__}'.format(name) }}",
    "{{ names.append('x') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ open('/etc/passwd') }}",
    "{{ name|attr('__class__') }}",
    "{{ ''|map(attribute='__class__')|list }}{{ ''['__class__'] }}",
]


class TemplateTest(TestCase):
    timeout = 120

    def setUp(self):
        self.rendering = Rendering(reactor)

    def tearDown(self):
        return Deferred.fromCoroutine(self.rendering.stop())

    def render(self, template, scope=None, **more):
        return Deferred.fromCoroutine(self.rendering.render(template, scope or {}, **more))

    async def test_values_stand_where_the_template_has_them(self):
        template = (
            "Hi {{ name }}:{% for each in list %} {{ loop.index }}={{ each.a|upper }}{% endfor %}"
        )
        scope = {"name": "Bøb <b>", "list": [{"a": "x"}, {"a": "ü"}]}
        assert await self.render(template, scope) == "Hi Bøb <b>: 1=X 2=Ü"
        assert await self.render("{{ name }}", scope, is_html=True) == "Bøb &lt;b&gt;"

    async def test_what_is_wrong_in_a_template_is_told(self):
        for template, said in (
            ("{{ nobody }}", "nobody"),
            ("{% if %}", "Expected"),
            ("{{ 1 / 0 }}", "division"),
            ("{{ name|nofilter }}", "nofilter"),
        ):
            with pytest.raises(ExpressionError, match=said):
                await self.render(template, {"name": "x"})

    async def test_a_template_reaches_nothing_that_it_was_not_given(self):
        for template in REACHING:
            try:
                text = await self.render(template, {"name": "x", "names": []})
            except ExpressionError:
                continue
            self.fail(f"{template} gave {text[:100]}")

    async def test_bombs_end_in_an_error(self):
        for name, template in BOMBS.items():
            begun = time.monotonic()
            with pytest.raises((ExpressionError, ProtocolViolation)):
                await self.render(template)
            assert time.monotonic() - begun < 10, name

    async def test_honest_ones_get_through_beside_bombs(self):
        bombs = [self.render(BOMBS["time"]) for _ in range(4)]
        honest = self.render("{{ 1 + 1 }}")
        assert await honest == "2"
        for each in bombs:
            with pytest.raises(ExpressionError):
                await each

    async def test_nothing_is_left_for_the_next_one(self):
        await self.render("{% set x = 5 %}{{ x }}")
        with pytest.raises(ExpressionError):
            await self.render("{{ x }}")

    async def test_what_waits_is_bounded(self):
        asked = [self.render("{{ 1 }}") for _ in range(66)]
        with pytest.raises(TemporaryFailure):
            await self.render("{{ 1 }}")
        assert set(await gatherResults(asked)) == {"1"}

    async def test_a_process_that_does_not_start_leaves_nothing_behind(self):
        def refused(*_, **__):
            raise OSError(11, "no more processes")

        with patch.object(reactor, "spawnProcess", refused):
            for _ in range(4):
                with pytest.raises(TemporaryFailure):
                    await self.render("{{ 1 }}")
        # Timers that are left would fail the test.
        assert await self.render("{{ 1 }}") == "1"

    async def test_who_gives_up_ends_his_process(self):
        rendering = self.render(BOMBS["time"])
        (renderer,) = self.rendering._renderers
        rendering.cancel()
        with pytest.raises(CancelledError):
            await rendering
        await renderer.gone
        assert not self.rendering._renderers

    async def test_a_template_that_is_too_long_is_refused(self):
        with pytest.raises(ProtocolViolation):
            await self.render("x" * (MAX_TEMPLATE + 1))
