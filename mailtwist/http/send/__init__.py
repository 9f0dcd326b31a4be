"""``/send``: mail from a web page or a program, in one request.

===================  ================================================================
module               holds
===================  ================================================================
:mod:`.routes`       the routes
:mod:`.access`       who may send, and how often
:mod:`.origins`      which web pages may
:mod:`.bodies`       the body of a request becomes a letter
:mod:`.once`         requests under one Idempotency-Key
:mod:`.sending`      the letter is committed, and its first attempts are waited for
:mod:`.fates`        what became of it
:mod:`.answers`      the shapes of answers and errors
:mod:`.description`  ``/send`` in the description of the API
:mod:`.assembly`     the parts, put together
===================  ================================================================
"""
