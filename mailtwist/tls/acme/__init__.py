"""Certificates from an authority by ACME: an order from the account to the stored chain.

``issuance`` is the whole of it for callers. It knows ``accounts``, ``proofs`` (with ``dns``) and
``chains``; ``authority`` and ``network`` speak the protocol and block, in ``threads``; ``values``
is what they share.
"""
