"""Values and grammar that every part shares: addresses, headers, MIME, sets and trees.

Pure Python without input or output: nothing here knows of the network, of the
database or of a clock that it was not given. Whatever a peer may send is read
in linear time and under a bound of size, depth and count.
"""
