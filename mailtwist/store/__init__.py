"""Everything durable: one SQL database behind plain functions of a connection."""
