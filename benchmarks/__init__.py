"""Measurements of a running server, by SMTP and IMAP on loopback."""
