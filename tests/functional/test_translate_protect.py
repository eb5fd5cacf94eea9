"""Protected spans on the command line."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.command import assert_refused, nmt

LINE = "我爱 https://example.com/a?b=1 中国，13800138000。"


def test_urls_and_long_numbers_come_out_unchanged(toy_run: Path) -> None:
    result = nmt("translate", "--model", toy_run, "--device", "cpu", LINE)
    assert result.code == 0, result.err
    assert result.out.count("https://example.com/a?b=1") == 1
    assert result.out.count("13800138000") == 1


def test_protect_none_translates_them_like_other_text(toy_run: Path) -> None:
    result = nmt("translate", "--model", toy_run, "--device", "cpu", "--protect", "none", LINE)
    assert result.code == 0, result.err
    assert "https://example.com/a?b=1" not in result.out


def test_a_pattern_of_the_user_is_copied(toy_run: Path) -> None:
    option = ("--protect-pattern", "大海+")
    result = nmt("translate", "--model", toy_run, "--device", "cpu", *option, "我爱大海。")
    assert result.out.count("大海") == 1


def test_bad_patterns_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    for pattern in ("(", "a*"):
        result = nmt("translate", "--model", tmp_path / "none", "--protect-pattern", pattern, "我")
        assert_refused(result, "--protect-pattern", pattern)
    both = ("--protect", "none", "--protect-pattern", "a+")
    assert_refused(nmt("translate", "--model", tmp_path / "none", *both, "我"), "contradict")


def test_a_bad_pattern_in_the_configuration_is_refused(toy: Path) -> None:
    result = nmt("prepare", "--config", toy, "--set", "data.protect=['(']")
    assert_refused(result, "data.protect (")
