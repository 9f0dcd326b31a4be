"""The documentation page of the extensions, made from the table that EHLO is answered from."""

from __future__ import annotations

from mailtwist.smtp.extensions import EXTENSIONS

HEAD = """\
# SMTP extensions

<!-- Generated from the table in mailtwist/smtp/extensions.py by scripts/generate.py. Do not edit. -->

What does the server announce after EHLO, and when?

| extension | standard | announced |
| --- | --- | --- |
"""  # noqa: E501

TAIL = """
- `BDAT` takes a message in chunks; with `BODY=BINARYMIME` its octets may be any at all.
  Text in chunks has the rule of `DATA`: a CR or LF that is no line end is refused with 550 5.6.11.
- What the next hop lacks is never lost in silence: a message that needs `SMTPUTF8`, `BINARYMIME` or `REQUIRETLS` comes back with the reason.
- Listeners of protocol `lmtp` speak RFC 2033: `LHLO`, mail for mailboxes here alone, and one answer for each recipient.
- `XCLIENT` tells of a connection that a proxy took in: `NAME`, `ADDR`, `PORT`, `PROTO` and `HELO`; it is answered 250 and the session goes on as that client.
- `XDEBUG` shows a developer the session; also `XDEBUG CONTEXT`, `XDEBUG STATE` and `XDEBUG CONNECTION`.
"""  # noqa: E501


def page() -> str:
    """docs/smtp.md."""
    rows = (
        f"| `{each.keyword}` | {each.standard or 'of its own'} | {each.when or 'always'} |\n"
        for each in EXTENSIONS
    )
    return HEAD + "".join(rows) + TAIL
