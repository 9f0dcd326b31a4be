"""Who may do what: logins and their lock-out, relay rules."""
