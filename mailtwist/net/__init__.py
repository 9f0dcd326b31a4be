"""Connections: one command at a time, back-pressure, idle sweep, counters."""
