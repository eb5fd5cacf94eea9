"""Consistency checks of the options of ``nmt translate``."""

from __future__ import annotations

import logging
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from nmt.errors import NmtError
from nmt.translate import command
from nmt.translate import run as run_module
from nmt.translate.request import Request, check
from nmt.viz import plots


def test_file_name_as_text_warns_with_the_input_option(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ph.txt"
    path.write_text("我爱中国。\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="nmt"):
        check(Request(texts=[str(path)]))
    assert f"nmt translate --input {path}" in caplog.text


@pytest.mark.parametrize("text", ["我爱中国。", "a\0b", "长" * 5000, ""])
def test_ordinary_text_does_not_warn(text: str, caplog: pytest.LogCaptureFixture) -> None:
    check(Request(texts=[text]))
    assert not caplog.records


def test_missing_matplotlib_is_refused_before_translating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "is_installed", lambda: False)
    with pytest.raises(NmtError, match=r"a\.svg: matplotlib is not installed") as error:
        check(Request(texts=["我"], attention=tmp_path / "a.svg"))
    assert error.value.hint == plots.INSTALL
    check(Request(texts=["我"], attention=tmp_path / "a.html"))


@pytest.mark.parametrize("name", ["a.png", "a", "a.html.gz", "-"])
def test_other_attention_formats_are_refused_with_the_supported_ones(name: str) -> None:
    with pytest.raises(NmtError, match=f"--attention {name}: unknown format") as error:
        check(Request(texts=["我"], attention=Path(name)))
    assert error.value.hint == "name a file that ends in .html or .svg"


@pytest.mark.parametrize("name", ["a.html", "a.HTML", "a.SVG"])
def test_attention_suffix_in_any_case_is_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "is_installed", lambda: True)
    check(Request(texts=["我"], attention=tmp_path / name))


def test_interrupt_has_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from nmt.translate.translator import Translator

    monkeypatch.setattr(Translator, "load", MagicMock())
    monkeypatch.setattr(run_module, "run", MagicMock(side_effect=KeyboardInterrupt))
    with caplog.at_level(logging.INFO, logger="nmt"), pytest.raises(KeyboardInterrupt):
        command.translate(
            **vars(Request(texts=["我"], model=[tmp_path], output=tmp_path / "en.txt"))
        )
    assert f"interrupted; {tmp_path / 'en.txt'} was not written" in caplog.text
