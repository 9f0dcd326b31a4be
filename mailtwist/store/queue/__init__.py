"""The rows of outgoing mail: one message, its recipients, where they go and what became of them."""
