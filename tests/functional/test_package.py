"""nmt package and nmt models, and commands that take a package."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt import Translator
from nmt.run import models
from tests.helpers.command import assert_refused, nmt

LINE = "老师喜欢茶。"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def package(toy_run: Path, tmp_path: Path) -> Path:
    result = nmt("package", toy_run, "--output", "toy.nmt")
    assert result.code == 0, result.err
    assert result.out == ""
    assert "toy.nmt: 0.1 MB, float16" in result.err
    return tmp_path / "toy.nmt"


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_translates_as_the_run(toy_run: Path, dtype: str) -> None:
    assert nmt("package", toy_run, "--output", "a.nmt", "--dtype", dtype).code == 0
    expected = nmt("translate", "--device", "cpu", "--model", toy_run, LINE)
    result = nmt("translate", "--device", "cpu", "--model", "a.nmt", LINE)
    assert (result.code, result.out) == (0, expected.out)


def test_evaluates_as_the_run_on_named_texts(toy_run: Path, package: Path) -> None:
    assert_refused(nmt("evaluate", package), "a package has no test set", "--src FILE --ref FILE")
    texts = ["--src", toy_run / "test.src.txt", "--ref", toy_run / "test.trg.txt"]
    scores = [
        nmt("evaluate", system, *texts, "--device", "cpu", "--output", f"out{number}")
        for number, system in enumerate((toy_run, package))
    ]
    assert [score.code for score in scores] == [0, 0], scores
    assert scores[0].out == scores[1].out
    page = nmt("evaluate", package, *texts, "--device", "cpu", "--html", "page.html")
    assert page.code == 0, page.err


def test_align_with_a_package(toy_run: Path, package: Path) -> None:
    Path("zh").write_text("老师 喜欢 茶\n", encoding="utf-8")
    Path("en").write_text("The teacher likes tea\n", encoding="utf-8")
    texts = ["--src", "zh", "--trg", "en", "--model"]
    assert_refused(nmt("align", *texts, package), "toy.nmt: a package without an aligner")
    expected = nmt("align", *texts, toy_run)
    assert nmt("package", toy_run, "--output", "b.nmt", "--with-aligner").code == 0
    result = nmt("align", *texts, "b.nmt")
    assert (result.code, result.out) == (0, expected.out)
    (toy_run / "aligner.safetensors").unlink()


def test_bundled_model_without_a_run(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BUNDLED", Path("absent.nmt"))
    assert_refused(nmt("translate", LINE), "no finished run", "nmt train")
    monkeypatch.setattr(models, "BUNDLED", package)
    default = nmt("translate", "--device", "cpu", LINE)
    named = nmt("translate", "--device", "cpu", "--model", "everyday", LINE)
    assert default.code == named.code == 0, default.err
    assert default.out == named.out != ""
    assert default.err.count("model: everyday (bundled") == 1


def test_load_without_arguments(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BUNDLED", package)
    assert Translator.load(device="cpu").translate([LINE])[0].text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["{run}", "--output", "a.zip"], ["--output a.zip: a package ends in .nmt", "a.nmt"]),
        (["nowhere", "--output", "a.nmt"], ["nowhere: no such run directory"]),
        (["toy.nmt", "--output", "a.nmt"], ["toy.nmt: no such run directory"]),
        (["{run}", "--output", "absent/a.nmt"], ["absent"]),
        (["{run}", "--output", "a.nmt", "--dtype", "int4"], ["int4"]),
        (["{run}"], ["--output"]),
    ],
)
def test_refusals(toy_run: Path, package: Path, arguments: list[str], parts: list[str]) -> None:
    assert package.exists()
    filled = [argument.format(run=toy_run) for argument in arguments]
    assert_refused(nmt("package", *filled), *parts)
    assert not Path("a.nmt").exists()


def test_list(toy_run: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BUNDLED", Path("absent.nmt"))
    Path("runs").mkdir()
    Path("runs/toy").symlink_to(toy_run)
    lines = nmt("models").out.splitlines()
    assert lines[0].split() == ["name", "date", "pairs", "dev", "BLEU", "size", "state"]
    assert [line.split()[0] for line in lines[1:]] == ["toy.nmt", "runs/toy"]
    assert all(line.endswith(" finished") for line in lines[1:])
    package.unlink()
    Path("runs/toy").unlink()
    empty = nmt("models")
    assert (empty.code, empty.out) == (0, "")
    assert "no model" in empty.err
