"""Text and numbers made fit to be shown: names from files may hold what terminals and pages act on."""

from __future__ import annotations

import re

# Control characters (ESC, BEL, line ends among them), marks that turn the direction of text or take no room,
# halves of surrogate pairs, and what XML can't hold.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e0fff]"
)


def plain(text: str) -> str:
    """Text on one line without control characters: each is written as its number, such as `\\x1b`."""
    return _CONTROL.sub(_number, text)


def plain_lines(text: str) -> str:
    """As `plain`, with the ends of lines kept."""
    return "\n".join(plain(line) for line in text.split("\n"))


def _number(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def digits(value: float) -> str:
    """A number with four significant digits, all of those in front of the point, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
