"""Flag bits fit a signed 64-bit column and do not meet."""

from __future__ import annotations

from mailtwist.mail import flags


def test_system_flags_are_single_bits_below_the_keywords() -> None:
    bits = list(flags.SYSTEM.values())
    assert len(set(bits)) == len(bits) == 5
    assert all(bit.bit_count() == 1 and bit < 1 << flags.FIRST_KEYWORD_BIT for bit in bits)
    assert (1 << flags.LAST_KEYWORD_BIT + 1) - 1 == 2**63 - 1
