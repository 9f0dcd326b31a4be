"""Every fixed reply of the server, in one place.

Texts that clients' documentation shows are kept to the letter. Replies that
quote something are functions.
"""

from __future__ import annotations

from mailtwist.mail.reply import Reply

# -- the course of things -------------------------------------------------------------------
OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "OK")
RECIPIENT_OK = Reply(250, "2.1.5", "OK")
START_MESSAGE = Reply(354, "", "Start mail input; end with <CRLF>.<CRLF>")
RESET_OK = Reply(250, "2.0.0", "Reset OK")
BYE = Reply(221, "2.0.0", "Bye")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
AUTHENTICATED = Reply(235, "2.7.0", "Authentication successful")
CANNOT_VRFY = Reply(252, "2.5.2", "Cannot VRFY user, but will accept message")

# -- the session ends -----------------------------------------------------------------------
SHUTTING_DOWN = Reply(421, "4.3.2", "Server is shutting down, try again later")
TIMEOUT = Reply(421, "4.4.2", "Timeout, closing connection")
LOGIN_GONE = Reply(421, "4.7.0", "The login is no longer valid")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MANY_UNKNOWN = Reply(554, "5.5.1", "Too many unrecognized commands")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many authentication attempts")

# -- order and syntax -----------------------------------------------------------------------
UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognized")
BAD_LINE = Reply(500, "5.5.2", "Syntax error")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BARE_LINE_END = Reply(500, "5.5.2", "Lines end with CRLF")
NOT_HERE = Reply(502, "5.5.1", "Command not recognized")
NO_EXPN = Reply(502, "5.5.1", "EXPN not supported")
GREET_FIRST = Reply(503, "5.5.1", "EHLO or HELO first")
OUT_OF_ORDER = Reply(503, "5.5.1", "Bad sequence of commands")
IN_CHUNKS_ALONE = Reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
NESTED_MAIL = Reply(503, "5.5.1", "Error: nested MAIL command")
MAIL_FIRST = Reply(503, "5.5.1", "MAIL first")
RCPT_FIRST = Reply(503, "5.5.1", "RCPT first")

# -- TLS and logins -------------------------------------------------------------------------
TLS_ACTIVE = Reply(503, "5.5.1", "TLS is active already")
NO_TLS = Reply(502, "5.5.1", "STARTTLS not available")
TLS_FIRST = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
LOGIN_NEEDED = Reply(530, "5.7.0", "Authentication required")
NO_AUTH = Reply(502, "5.5.1", "AUTH not available")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
ALREADY_AUTHENTICATED = Reply(503, "5.5.1", "Already authenticated")
AUTH_IN_TRANSACTION = Reply(503, "5.5.1", "No AUTH inside a mail transaction")
UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Unrecognized authentication mechanism")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_BAD_RESPONSE = Reply(501, "5.5.2", "Invalid authentication response")
AUTH_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
BAD_CREDENTIALS = Reply(535, "5.7.8", "Authentication credentials invalid")
REQUIRETLS_NEEDS_TLS = Reply(530, "5.7.4", "REQUIRETLS requires an active TLS connection")
NOT_TRUSTED = Reply(550, "5.7.0", "Insufficient authorization")
NOT_YOUR_ADDRESS = Reply(553, "5.7.1", "Sender address rejected: not owned by the login")

# -- a message ------------------------------------------------------------------------------
RATE_EXCEEDED = Reply(450, "4.7.1", "rate limit exceeded")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TOO_MANY_REFUSED = Reply(421, "4.7.0", "Too many refused recipients")
ESMTP_ONLY = Reply(555, "5.5.4", "Parameters need EHLO")
# RFC 6531 §3.5
UTF8_NOT_DECLARED = Reply(553, "5.6.7", "Address beyond ASCII needs SMTPUTF8")
BARE_IN_MESSAGE = Reply(550, "5.6.11", "Message has a CR or LF that is no line end")
LOCAL_ERROR = Reply(451, "4.3.0", "Local error in processing, try again later")

CONSTANTS = tuple(value for value in list(globals().values()) if isinstance(value, Reply))
# Rendered once: these make up nearly all that is ever said.
_WIRE = {id(reply): reply.encode() for reply in CONSTANTS}


def wire(reply: Reply) -> bytes:
    """The octets of a reply."""
    return _WIRE.get(id(reply)) or reply.encode()


def ready(hostname: str) -> Reply:
    return Reply(220, "", f"{hostname} ESMTP mailtwist ready")


def queued(queue_id: str) -> Reply:
    return Reply(250, "2.0.0", f"Message accepted for delivery: OK: queued as {queue_id}")


def chunk_taken(octets: int) -> Reply:
    return Reply(250, "2.0.0", f"{octets} bytes received")


def too_large(maximum: int, declared: int | None = None) -> Reply:
    """RFC 1870 §6.1, §6.3."""
    sizes = f"{declared} declared, {maximum} maximum" if declared else f"{maximum} maximum"
    return Reply(552, "5.3.4", f"Message size exceeds fixed maximum message size ({sizes})")
