"""The messages that the command line itself writes: the welcome and the test."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailtwist.mail.address import Address


def letter(*, sender: Address, recipient: Address, subject: str, text: str, hostname: str) -> bytes:
    """A plain text message, ready for the store."""
    from mailtwist.mail.compose import compose

    return compose(
        sender=sender,
        sender_name="mailtwist",
        recipients=[recipient],
        subject=subject,
        text=text,
        seconds=time.time(),
        message_id=f"{secrets.token_hex(12)}@{hostname}",
    )


WELCOME_SUBJECT = "Welcome to mailtwist"
WELCOME_TEXT = """\
Hello,

this is your own mail server, and this is the first message in it.

It runs on your machine only: nobody else reaches it, and nothing leaves it.
Whatever you send to it, to any address, ends up here or as captured mail.

What to try next:

  * send a message with the swaks or curl line that the server printed;
  * read it with the curl line for IMAP, or point a mail program at it;
  * `mailtwist account add alice@example.com` makes a second account;
  * `mailtwist import` brings the mail you have, from a Maildir or an mbox.

docs/ in the checkout says how to go on from here.
"""
TEST_TEXT = """\
This is a test message from `mailtwist send-test`.
Whoever reads it here knows that mail to this address arrives.
"""
