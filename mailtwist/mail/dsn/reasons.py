"""What a status code means, in words for people, and what they can do about it.

A row is found by the whole code, then by its subject and detail, then by its subject alone;
``X`` stands for any (RFC 3463; RFC 7372; RFC 7504; RFC 7505; RFC 8689).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """``why`` may hold ``{domain}``, the domain of the recipient."""

    why: str
    advice: str


_CHECK: Final = (
    "Check the address for a typing error and send the message again."
    " If it is right, ask the recipient in another way whether it is still in use."
)
_OTHER_WAY: Final = "Tell the recipient in another way, and send the message again later."
_ASK_THEM: Final = (
    "Tell the recipient in another way. Only the people who run the mail of {domain} can change"
    " this; the answer above, sent to them, says what they need to know."
)
_ASK_US: Final = (
    "Show this report to the people who run your own mail server. Your message is not at fault."
)
_SMALLER: Final = (
    "Send it in smaller parts, or put the attachments where the recipient can fetch them and"
    " send the link."
)
_UNWANTED: Final = (
    "Write to the recipient in another way, or ask the people who run your mail server to look"
    " at the answer above: it may say how to be let in."
)
_AUTHENTICITY: Final = (
    "Show this report to the people who run your own mail server: `mailtwist dns` prints the"
    " records that the domain of your address should have."
)

REASONS: Final = {
    # Addresses
    "X.1.1": Reason("There is no such address at {domain}.", _CHECK),
    "X.1.2": Reason("The domain {domain} does not exist, or no mail can be sent to it.", _CHECK),
    "X.1.3": Reason("The address is not written as an address must be.", _CHECK),
    "X.1.4": Reason("The address means more than one mailbox.", _CHECK),
    "X.1.6": Reason("The recipient has moved and left no new address.", _CHECK),
    "X.1.7": Reason("The server of {domain} refuses your own address as badly written.", _ASK_US),
    "X.1.8": Reason("The server of {domain} cannot find the domain of your address.", _ASK_US),
    "X.1.10": Reason("The domain {domain} says that it takes no mail at all.", _CHECK),
    "5.1.X": Reason("The server of {domain} does not take mail for this address.", _CHECK),
    # Mailboxes
    "X.2.1": Reason("The mailbox exists but takes no mail: it is switched off.", _CHECK),
    "X.2.2": Reason("The recipient's mailbox is full.", _OTHER_WAY),
    "X.2.3": Reason("The message is larger than the recipient's mailbox allows.", _SMALLER),
    "X.2.4": Reason("The address is a mailing list that cannot be reached just now.", _ASK_THEM),
    "X.2.X": Reason("The recipient's mailbox does not take the message.", _OTHER_WAY),
    # Mail systems
    "X.3.1": Reason("The mail server of {domain} has no room left.", _OTHER_WAY),
    "X.3.2": Reason("The mail server of {domain} takes no mail at present.", _OTHER_WAY),
    "X.3.4": Reason("The message is larger than the mail server of {domain} allows.", _SMALLER),
    "X.3.X": Reason("The mail server of {domain} is out of order.", _ASK_THEM),
    # Ways there
    "X.4.1": Reason("No mail server of {domain} answers.", _ASK_THEM),
    "X.4.2": Reason("The connection to the mail server of {domain} broke.", _ASK_THEM),
    "X.4.3": Reason("The way to {domain} could not be looked up: its DNS gives no answer.", _CHECK),
    "X.4.4": Reason("No way leads to a mail server of {domain}.", _CHECK),
    "X.4.5": Reason("The mail server of {domain} has too much to do.", _OTHER_WAY),
    "X.4.6": Reason("The message went round in a circle: {domain} sends it back to us.", _ASK_THEM),
    "X.4.7": Reason("The time was up before the message could be handed over.", _OTHER_WAY),
    "X.4.X": Reason("The mail server of {domain} cannot be reached.", _ASK_THEM),
    # Dialogue
    "X.5.3": Reason("The message has too many recipients for this server.", _OTHER_WAY),
    "X.5.X": Reason("The two mail servers did not understand each other.", _ASK_US),
    # Contents
    "X.6.3": Reason(
        "The message has 8-bit text, which the mail server of {domain} cannot take.",
        "Send it again as plain text without accents, or ask the recipient for another address.",
    ),
    "X.6.7": Reason(
        "An address of this message has letters that the mail server of {domain} cannot take.",
        "Use an address of plain English letters, your own included, if there is one.",
    ),
    "X.6.X": Reason("The mail server of {domain} does not take what is in the message.", _UNWANTED),
    # Policy
    "X.7.8": Reason("The server that carries our mail onward refused our login.", _ASK_US),
    "X.7.10": Reason(
        "The mail server of {domain} wants a connection more secret than we could make.", _ASK_US
    ),
    "X.7.20": Reason("The message is not signed as {domain} wants it (DKIM).", _AUTHENTICITY),
    "X.7.21": Reason("The message is not signed as {domain} wants it (DKIM).", _AUTHENTICITY),
    "X.7.22": Reason("The signature is not that of your address (DKIM).", _AUTHENTICITY),
    "X.7.23": Reason(
        "Our server may not send for the domain of your address (SPF).", _AUTHENTICITY
    ),
    "X.7.24": Reason("The SPF record of your domain could not be read.", _AUTHENTICITY),
    "X.7.25": Reason("The network address of our server has no name (reverse DNS).", _AUTHENTICITY),
    "X.7.26": Reason(
        "Nothing proves that the message is from your domain (SPF, DKIM, DMARC).", _AUTHENTICITY
    ),
    "X.7.27": Reason("The domain of your address says that it sends no mail.", _AUTHENTICITY),
    "X.7.30": Reason(
        "You asked for secrecy all the way (REQUIRETLS), and the mail server of {domain} cannot"
        " promise it. Nothing of the message was sent.",
        "If the message may travel without that promise, send it again without the demand.",
    ),
    "4.7.X": Reason(
        "The mail server of {domain} put us off; many do so once with a sender whom they do not"
        " know.",
        _OTHER_WAY,
    ),
    "X.7.X": Reason("The mail server of {domain} refused the message as unwanted.", _UNWANTED),
}
_UNKNOWN: Final = {
    "4": Reason("The mail server of {domain} could not take the message.", _OTHER_WAY),
    "5": Reason("The mail server of {domain} refused the message.", _ASK_THEM),
}


def reason_for(status: str) -> Reason:
    """The words for an enhanced status of class 4 or 5."""
    class_, _, rest = status.partition(".")
    subject = rest.partition(".")[0]
    for key in (status, f"X.{rest}", f"{class_}.{subject}.X", f"X.{subject}.X"):
        if key in REASONS:
            return REASONS[key]
    return _UNKNOWN["4" if class_ == "4" else "5"]
