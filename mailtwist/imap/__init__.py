"""The IMAP front-end: RFC 3501 and RFC 9051 over the store's shared snapshots."""
