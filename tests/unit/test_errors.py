"""Messages show no character that a terminal executes."""

from __future__ import annotations

from nmt.errors import NmtError


def test_control_characters_of_data_are_escaped() -> None:
    error = NmtError("a.tsv:1: \x1b]0;x\x07 \x9b1m \u202eabc\n\tnext", "\x1b[2J 中文")
    assert error.message == "a.tsv:1: \\x1b]0;x\\x07 \\x9b1m \\u202eabc\n\tnext"
    assert error.hint == "\\x1b[2J 中文"
    assert "\x1b" not in str(error)
