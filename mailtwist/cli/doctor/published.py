"""The DNS records of a domain, as the world sees them, beside those of ``mailtwist dns``."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from mailtwist.cli.doctor.examination import Finding, fail, ok, warn
from mailtwist.cli.doctor.leaving import resolver_of
from mailtwist.config import Settings

if TYPE_CHECKING:
    from mailtwist.net.stub import Stub
    from mailtwist.policy.dns_records import Record

# A record that must be there fails when it is not; one that should be is worth a word.
_MISSING: Final[Mapping[str, Callable[..., Finding]]] = {"must": fail, "should": warn}
# These tags say what a TXT record is; of some a domain has one at most.
_TAGS: Final = ("v=spf1", "v=DKIM1", "v=DMARC1", "v=STSv1", "v=TLSRPTv1")


def records(settings: Settings, wanted: Sequence[Record]) -> Iterator[Finding]:
    """One finding for each record that must or should be published, addresses first."""
    stub = resolver_of(settings)
    yield from addresses(settings, stub)
    asked = [each for each in wanted if each.need in _MISSING and each.name]
    with ThreadPoolExecutor(8) as threads:
        yield from threads.map(lambda each: compared(each, stub), asked)


def addresses(settings: Settings, stub: Stub) -> Iterator[Finding]:
    """The host has an address, and each address leads back to it."""
    host = settings.hostname
    name = f"A {host}"
    found = [address for kind in ("A", "AAAA") for address in _values(stub, host, kind)]
    if not found:
        yield fail(name, "not published", f"publish the address of {host}")
        return
    yield ok(name, ", ".join(found))
    for address in found:
        yield _reverse(address, host, stub, is_relayed=bool(settings.relay.host))


def _reverse(address: str, host: str, stub: Stub, *, is_relayed: bool) -> Finding:
    pointer = ipaddress.ip_address(address).reverse_pointer
    names = [name.rstrip(".").lower() for name in _values(stub, pointer, "PTR")]
    if host in names:
        return ok(f"PTR {address}", host)
    reason = f"leads to {', '.join(names)}, not to {host}" if names else "not published"
    advice = f"whoever gave you {address} sets its name to {host}"
    # Behind a smart host nobody looks at it.
    return (warn if is_relayed else fail)(f"PTR {address}", reason, advice)


def compared(record: Record, stub: Stub) -> Finding:
    """What is published under the record's name against what should be."""
    from mailtwist.net.stub import DnsError, LookupFailed
    from mailtwist.policy.dns_records import zone_line

    name = f"{record.type} {record.name}"
    missing = _MISSING[record.need]
    try:
        found = _texts(stub.query(record.name, record.type).values)
    except LookupFailed as error:
        return missing(name, str(error), "ask again later")
    except DnsError:
        found = []
    rivals = [each for each in found if _is_rival(record, each)]
    advice = f"publish: {zone_line(record)}"
    if not rivals:
        return missing(name, "not published", advice)
    if record.value.startswith("v=spf1") and len(rivals) > 1:
        # RFC 7208 §4.5
        return fail(name, "there are several v=spf1, which counts as none", "keep one of them")
    if any(_is_same(record, each) for each in rivals):
        return ok(name, record.value if len(record.value) < 80 else "published")
    return _other(name, record, rivals[0], advice)


def _other(name: str, record: Record, found: str, advice: str) -> Finding:
    if record.value.startswith("v=DMARC1"):
        return ok(name, found)  # a policy of the domain's own
    if record.value.startswith("v=DKIM1"):
        return fail(name, "another key is published", advice)
    return warn(name, f"published is: {found[:200]}", advice)


def _is_rival(record: Record, found: str) -> bool:
    """Whether ``found`` speaks of the same thing: a name holds TXT records of all kinds."""
    if record.type != "TXT":
        return True
    tag = next((tag for tag in _TAGS if record.value.startswith(tag)), "")
    # RFC 6376 §3.6.1: in a key record the tag may be left out.
    return found.startswith(tag) or (tag == "v=DKIM1" and "p=" in found)


def _is_same(record: Record, found: str) -> bool:
    if record.value.startswith("v=DKIM1"):
        return _tag(found, "p") == _tag(record.value, "p")
    if record.type == "MX":
        # Its preference is the operator's choice.
        return found.rpartition(" ")[2] == record.value.rpartition(" ")[2]
    return " ".join(found.split()) == " ".join(record.value.split())


def _tag(text: str, name: str) -> str:
    for part in text.split(";"):
        key, _, value = part.partition("=")
        if key.strip() == name:
            return "".join(value.split())
    return ""


def _texts(values: Sequence[object]) -> list[str]:
    from mailtwist.net.stub import Mx

    found = []
    for each in values:
        if isinstance(each, Mx):
            found.append(f"{each.preference} {each.name}")
        elif isinstance(each, bytes):
            found.append(each.decode("utf-8", "replace"))
        else:
            text = str(each).lower()
            found.append(text if text.endswith(" .") else text.rstrip("."))
    return found


def _values(stub: Stub, name: str, kind: str) -> list[str]:
    from mailtwist.net.stub import DnsError

    try:
        return [str(each) for each in stub.query(name, kind).values]
    except DnsError:
        return []
