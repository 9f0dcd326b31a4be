"""What ``mailtwist doctor`` looks at: each module one part of an installation.

A check is a plain function that may block; :mod:`mailtwist.cli.doctor.examination` runs all of
them side by side, each in a thread with a deadline.
"""
