"""What twistd reads to know the command ``mailtwist``.

Every ``twistd`` on the machine imports this file, so it imports nothing heavy.
"""

from twisted.application.service import ServiceMaker

mailtwist = ServiceMaker(
    "mailtwist",
    "mailtwist.tap",
    "A mail server: SMTP, submission, IMAP and HTTP over one SQL store.",
    "mailtwist",
)
