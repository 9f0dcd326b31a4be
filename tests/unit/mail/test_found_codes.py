"""One-time codes out of mails as they are really sent, and numbers that are none."""

from __future__ import annotations

import pytest

from mailtwist.mail.found_codes import MAX_CODES, codes

FOOTER = "\n\n© 2024 Example Inc, 1600 Amphitheatre Parkway, Mountain View, CA 94043"

MAILS = [
    ("Your verification code", "482913" + FOOTER, ["482913"]),
    ("123456 is your Example confirmation code", "Enter it in the app.", ["123456"]),
    ("Sign in", "Your code is 123 456. It expires in 10 minutes.", ["123456"]),
    ("Sign in", "Your security code: 123-456\nCall +1 650-253-0000", ["123456"]),
    ("Example", "G-739201 is your Example verification code.", ["739201"]),
    ("", "Use 902331 as your account security code", ["902331"]),
    ("Login", "Here is the code you need to login:\n\n5TDF2\n\nThe team", ["5TDF2"]),
    ("Device", "Enter code WDJB-MJHT at https://example.com/login/12345678", ["WDJB-MJHT"]),
    ("Login", "verification code\n\n  A1B2C3  \n", ["A1B2C3"]),
    ("Code", "Your one-time password: aB3xY9z", ["aB3xY9z"]),
    ("PIN", "Your PIN: 1987", ["1987"]),
    ("Your code", "1\n2\n3\n4\n5\n6\n", ["123456"]),
    ("Your code", "1 2 3 4 5 6", ["123456"]),
    ("OTP", "Your OTP is 77120034. Do not share it.", ["77120034"]),
    ("", "*Verification code:* 004512", ["004512"]),
    ("Ihr Bestätigungscode", "Ihr Bestätigungscode lautet: 8821\nBestellung 12345678", ["8821"]),
    ("TAN", "Ihre TAN 551298 für die Überweisung über 1.200,00 EUR", ["551298"]),
    ("", "Votre code de vérification est 339201.", ["339201"]),
    ("", "Su código de verificación es: 771920", ["771920"]),
    ("", "Il tuo codice è 551209", ["551209"]),
    ("", "Seu código: 445566", ["445566"]),
    ("", "Twój kod to 118822", ["118822"]),
    ("", "Ваш код подтверждения: 5521", ["5521"]),
    ("", "验证码：604213，5分钟内有效", ["604213"]),
    ("", "認証コード: 903114", ["903114"]),
    ("", "인증번호 [551920]", ["551920"]),
]

NONE = [
    ("Order #123456", "Your order 998877 totals $1234.56. Order number: 55443322."),
    ("News 2024", "In 2024 we have 5000 users and code reviews in 2023."),
    ("Your receipt", "Use promo code SAVE2024 for 20% off. Total $1234"),
    ("Dress code", "Dress code: smart. Doors open at 1900. Call 0171 2345678"),
    ("Your invitation code", "Ring +49 30 1234567 or 555-123-4567"),
    ("Password changed", "Your password was changed at 14:30 on 2026-03-01 from 192.0.2.17."),
    ("Verify", "Open https://example.com/verify/123456 to verify ann123456@example.com"),
    ("Hello", "482913"),
    ("", ""),
]


@pytest.mark.parametrize(("subject", "text", "expected"), MAILS)
def test_the_code_of_a_mail_is_found_and_nothing_else(subject, text, expected):
    assert codes(subject, text) == expected


@pytest.mark.parametrize(("subject", "text"), NONE)
def test_a_mail_without_a_code_has_none(subject, text):
    assert codes(subject, text) == []


def test_several_codes_of_one_kind_come_in_their_order():
    text = "Your backup codes:\n\n" + "\n".join(f"{n}{n}{n}{n}1234" for n in range(1, 6))
    assert codes("", text) == ["11111234", "22221234", "33331234", "44441234", "55551234"]


def test_there_are_never_more_than_the_bound():
    text = "Your codes:\n" + "\n".join(str(n) for n in range(100_000, 100_100))
    assert len(codes("", text)) == MAX_CODES


@pytest.mark.parametrize(
    "piece", ["1 ", "A1", "1 2 ", "code 123456 ", "a@", "\n1", "123 456 ", "code", "#", "order "]
)
def test_what_is_made_to_be_slow_is_read_in_time_that_grows_with_its_length(piece):
    assert len(codes("code", piece * (1_000_000 // len(piece)))) <= MAX_CODES
