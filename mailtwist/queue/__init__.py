"""Outgoing mail: when, where to, how, and what is told to the sender.

The rows are :mod:`mailtwist.store.queue`; nothing here is needed to read them.
"""
