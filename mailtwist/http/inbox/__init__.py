"""``/emails``: what was captured, read, waited for and cleared over HTTP.

===================  ================================================================
module               holds
===================  ================================================================
:mod:`.waiting`      :class:`Waiting`: the next message that fits, without HTTP too
:mod:`.finding`      lists and searches, without HTTP too
:mod:`.documents`    what of a message goes into an answer
:mod:`.content`      a message's own octets and its attachments
:mod:`.names`        names of inboxes, numbers of messages, parameters
:mod:`.access`       whose inbox a request may see, and how often it may ask
:mod:`.routes`       the routes
===================  ================================================================
"""
