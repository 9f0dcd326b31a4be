"""mailtwist: SMTP, IMAP and HTTP over one SQL store, as a Twisted service."""

__version__ = "0.1.0"
