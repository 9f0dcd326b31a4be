from __future__ import annotations

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.authors import MAX_AUTHORS, authors
from mailtwist.mail.header import MAX_BLOCK


@pytest.mark.parametrize(
    "header, addresses",
    [
        (b"From: A@B.example\r\n\r\n", ["A@b.example"]),
        (b"from \t: Ann <a@b.example>,\r\n (also) c@d.example\r\n", ["a@b.example", "c@d.example"]),
        (b"From: a@b.example\r\nX: y\r\nFROM: c@d.example\r\n", ["a@b.example", "c@d.example"]),
        (b"From: a@b.example\r\nFrom: A@B.EXAMPLE\r\n", ["A@b.example"]),
        (b"From: All: a@b.example, c@d.example;\r\n", ["a@b.example", "c@d.example"]),
        (b'From: "a@b.example" <c@d.example>\r\n', ["c@d.example"]),
        (b'From: "j q"@b.example\r\n', ['"j q"@b.example']),
        ("From: jö@bücher.example\r\n".encode(), ["jö@xn--bcher-kva.example"]),
        (b"From: a@b.example\r\n\r\nFrom: body@d.example\r\n", ["a@b.example"]),
    ],
)
def test_every_from_field_counts(header, addresses):
    assert [str(each) for each in authors(header)] == addresses


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Subject: x\r\n\r\nFrom: a@b.example\r\n",
        b"From:\r\n",
        b"From: nobody\r\n",
        b"From: <>\r\n",
        b"From: @b.example\r\n",
        b"From: a@b.example, x\r\n",
        b"From: a@b.example\r\nFrom: somebody else\r\n",
        b"From: " + b",".join(b"a%d@b.example" % n for n in range(MAX_AUTHORS + 1)),
        b"From: a@b.example\r\nX: %b\r\nFrom: c@d.example\r\n" % (b"x" * MAX_BLOCK),
        b"From: a@b.example\r\nFrom: " + b"\\;" * 5000 + b"\r\n",
    ],
)
def test_who_cannot_be_told_for_sure_is_nobody(header):
    with pytest.raises(ProtocolViolation):
        authors(header)
