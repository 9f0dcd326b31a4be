"""The running server: what it is built of, what it listens on, how it starts, stops and tells."""
