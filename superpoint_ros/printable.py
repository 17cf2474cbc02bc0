"""Text of files and messages as it may be shown: without what a terminal would obey."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """The text, with � in place of control characters, escape sequences among them, and others that show nothing.

    keep  characters that stay nevertheless, such as line ends
    """
    return "".join(each if each.isprintable() or each in keep else "�" for each in text)
