"""SMTP as served: inbound (MX), submission with STARTTLS, submissions with TLS."""
