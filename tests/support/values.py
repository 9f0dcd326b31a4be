"""The keys of ``_config``, in memory."""

from __future__ import annotations


class Values:
    def __init__(self, **values):
        self.values = values
        self.made = 0
        self.watchers = []

    def get(self, name):
        return self.values.get(name, "")

    def watch(self, callback):
        self.watchers.append(callback)

    async def establish(self, name, make):
        if name not in self.values:
            self.made += 1
            self.values[name] = make()
        return self.values[name]

    def put(self, name, value):
        self.values[name] = value
        for watcher in self.watchers:
            watcher()
