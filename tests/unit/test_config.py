from __future__ import annotations

from pathlib import Path

import pytest

from nmt.config.load import dump_config, load_config
from nmt.errors import NmtError

SMALL = """\
run: r
data:
  dir: d
  sources: [{source: tsv, path: x.tsv}]
"""
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def fails(path: Path, *overrides: str) -> NmtError:
    with pytest.raises(NmtError) as caught:
        load_config(path, list(overrides))
    return caught.value


def test_defaults_are_filled_in_and_survive_a_round_trip(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL))
    assert config.train.learning_rate == 1e-3
    again = load_config(write(tmp_path, dump_config(config)))
    assert again == config


def test_exponents_are_numbers(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL + "train: {learning_rate: 2e-3}\n"))
    assert config.train.learning_rate == 0.002


def test_overrides_reach_into_sections_and_lists(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, SMALL), ["train.epochs=3", "data.sources.0.path=y.tsv", "run=elsewhere"]
    )
    assert config.train.epochs == 3
    assert config.data.sources[0].path == Path("y.tsv")  # type: ignore[union-attr]
    assert config.run == Path("elsewhere")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("train: {bach_tokens: 5}", "unknown key train.bach_tokens", "did you mean batch_tokens?"),
        ("train: {dropout: 0.1}", "unknown key train.dropout", "did you mean model.dropout?"),
        ("trian: {}", "unknown key trian", "did you mean train?"),
        ("train: {epochs: many}", "train.epochs: input should be a valid integer, unable to "
         "parse string as an integer, not 'many'", None),
        ("train: {epochs: 0}", "train.epochs: input should be greater than or equal to 1, not 0",
         None),
        ("model: {dropout: 1.5}", "model.dropout: input should be less than 1, not 1.5", None),
        ("model: {attention: dott}", "model.attention: input should be 'additive' or 'none', "
         "not 'dott'", None),
    ],
)  # fmt: skip
def test_a_bad_key_is_named(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    path = write(tmp_path, f"{SMALL}{text}\n")
    error = fails(path)
    assert error.message == f"{path}: {message}"
    assert error.hint == hint


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "run: r\n")
    assert fails(path).message == f"{path}: key data is missing"


def test_a_repeated_key_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + "run: again\n")
    assert fails(path).message == f"{path}:5: not YAML: key run is repeated"


def test_not_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "run: [r\n")
    assert fails(path).message.startswith(f"{path}:2: not YAML: ")


def test_not_a_mapping(tmp_path: Path) -> None:
    path = write(tmp_path, "just words\n")
    assert fails(path).message == f"{path}: not a configuration: no sections in it"


def test_missing_file(tmp_path: Path) -> None:
    error = fails(tmp_path / "no.yaml")
    assert error.message == f"{tmp_path / 'no.yaml'}: no such configuration file"
    assert error.hint == "nmt init TEXT writes a configuration for your text"


def test_unknown_source(tmp_path: Path) -> None:
    path = write(tmp_path, "run: r\ndata: {dir: d, sources: [{source: tvs, path: x}]}\n")
    error = fails(path)
    assert "unknown source 'tvs'" in error.message
    assert error.hint == "did you mean tsv?"


def test_a_mistake_in_a_dev_set_that_is_a_source(tmp_path: Path) -> None:
    data = "data: {{dir: d, sources: [{{source: tsv, path: x}}], dev: {{{}}}}}"
    wrong = fails(write(tmp_path, f"run: r\n{data.format('source: tsv, pth: x')}\n"))
    assert "data.dev" in wrong.message
    assert wrong.hint == "did you mean path?"


def test_a_dash_is_standard_input_and_keys_can_be_merged(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL), ["data.sources.0.path=-"])
    assert config.data.sources[0].path == Path("-")  # type: ignore[union-attr]
    text = (
        "run: r\ndata:\n  dir: d\n  sources:\n    - &first {source: tsv, path: a, weight: 2}\n"
        "    - {<<: *first, path: b}\n"
    )
    first, second = load_config(write(tmp_path, text)).data.sources
    assert (first.path, second.path) == (Path("a"), Path("b"))  # type: ignore[union-attr]
    assert first.weight == second.weight == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set train.epochs: not of the form section.key=value"),
        ("data.sources.7.path=x", "--set data.sources.7.path=x: data.sources is a list of 1, "
         "7 is not a valid index"),
        ("run.x=1", "--set run.x=1: run has no keys under it"),
    ],
)  # fmt: skip
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    assert fails(write(tmp_path, SMALL), override).message == message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_the_shipped_configurations_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.run == Path("runs") / path.stem
    assert config.data.dir == Path("data") / path.stem


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.dev=0", "data.dev: must be at least 1, not 0"),
        ("data.src_vocab=100", "data.src_vocab: must be between 300 and 1000000, not 100"),
        ("train.schedule_by=minutes", "train.schedule_by: minutes needs train.max_minutes"),
        ("data.sources=[{path: x}]", "data.sources.0: key source is missing"),
    ],
)
def test_inconsistent_values_are_refused(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path, SMALL)
    error = fails(path, override)
    assert error.message == f"{path}: {message}"
    kinds = "one of: hsk, tsv, csv, jsonl, parallel, sgm, tmx, po, xliff"
    assert error.hint == (kinds if "missing" in message else None)


def test_files_that_are_not_a_configuration(tmp_path: Path) -> None:
    assert fails(tmp_path).message == f"{tmp_path}: Is a directory"
    path = write(tmp_path, SMALL + "1: x\n")
    assert fails(path).message.endswith(": not YAML: key 1 is not a string")
    path.write_bytes("run: 跑\n".encode("gb18030"))
    assert fails(path).message == f"{path}: not valid UTF-8, so not a configuration file"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mine.yml", "did you mean mine.yaml?"),
        ("mien.yaml", "did you mean mine.yaml?"),
        ("quickstart.yml", "nmt init --recipe quickstart --output quickstart.yaml"),
    ],
)
def test_a_similar_configuration_is_suggested(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("run: r\n", encoding="utf-8")
    with pytest.raises(NmtError) as caught:
        load_config(Path(name))
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["runs/a #2", "2024-05-01", "123", "1.10", "null"])
def test_a_path_is_text_on_the_command_line(tmp_path: Path, name: str) -> None:
    assert load_config(write(tmp_path, SMALL), [f"run={name}"]).run == Path(name)


@pytest.mark.parametrize(("name", "path"), [("2024-05-01", "2024-05-01"), ("123", "123")])
def test_a_date_or_a_number_is_a_path_in_a_file(tmp_path: Path, name: str, path: str) -> None:
    text = SMALL.replace("run: r", f"run: {name}")
    assert load_config(write(tmp_path, text)).run == Path(path)


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(write(tmp_path, SMALL), ["run=~/x"]).run == tmp_path / "x"


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("gbk", "gb18030"), ("GB2312", "gb18030"), ("cp936", "gb18030"), ("utf-8-sig", "utf-8")],
)
def test_other_names_of_an_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    config = load_config(write(tmp_path, SMALL), [f"data.sources.0.encoding={name}"])
    assert config.data.sources[0].encoding == encoding  # type: ignore[union-attr]


@pytest.mark.parametrize("merge", ["", "<<: "])
def test_an_alias_bomb_is_refused(tmp_path: Path, merge: str) -> None:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for i in range(1, 12):
        items = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} {{{merge}[{items}]}}" if merge else f"a{i}: &a{i} [{items}]")
    path = write(tmp_path, SMALL + "\n".join(lines) + "\n")
    assert "more than 100000 values after expanding aliases" in fails(path).message
    path = write(tmp_path, SMALL + "a: &a [*a]\n")
    assert "after expanding aliases" in fails(path).message
    path = write(tmp_path, SMALL + "a: " + "[" * 5000 + "\n")
    assert "nested too deeply" in fails(path).message


def test_a_value_in_a_message_is_shortened(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + f"train: {{epochs: {'x' * 5000}}}\n")
    assert len(fails(path).message) < len(str(path)) + 250
