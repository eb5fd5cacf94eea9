"""Packages: content, determinism, and refusal of damaged files."""

import hashlib
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from nmt.align.aligner import Aligner
from nmt.align.command import load_or_learn
from nmt.config.load import load_config
from nmt.data.packed import PackedSet
from nmt.errors import NmtError
from nmt.prepare.pipeline import prepare
from nmt.run import models
from nmt.run.directory import ALIGNER, Run
from nmt.run.models import default_model, find_models, open_model
from nmt.run.package import Package, pack, read_info
from nmt.translate.translator import Translator
from tests.helpers.toy import write_config

CPU = torch.device("cpu")
LINES = ["我今天吃苹果。", "他们明天买书。", "", "我们看见猫。你喜欢花。"]
ZEROS = "0" * 64


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_config(tmp_path_factory.mktemp("package"))
    prepare(load_config(path))
    return path


def make_run(config_path: Path, folder: Path, seed: int = 1) -> Run:
    """Return a finished run with random weights."""
    run = Run.create(load_config(config_path, [f"run={folder}"]))
    torch.manual_seed(seed)
    weights = run.build_model().state_dict()
    run.checkpoints.save({"update": 7}, weights, {"x": torch.zeros(1)}, 12.0)
    record = {
        "kind": "validation", "update": 7, "dev_bleu": 12.0, "dev_chrf": 34.0, "sentences": 8,
        "signature": "BLEU|nrefs:1",
    }  # fmt: skip
    (folder / "train.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    run.mark_finished()
    return run


@pytest.fixture(scope="module")
def run(config_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(config_path, tmp_path_factory.mktemp("run") / "toy")


@pytest.fixture(scope="module")
def data(run: Run) -> bytes:
    return pack(run)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def edit(data: bytes, change: Callable[[dict, dict[str, Tensor]], None]) -> bytes:
    """Return a package with changed metadata and tensors, and the right checksum."""
    size = int.from_bytes(data[:8], "little")
    info = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["nmt"])
    tensors = load(data)
    info["checksum"] = ZEROS
    change(info, tensors)
    edited = save(tensors, {"nmt": json.dumps(info)})
    return edited.replace(ZEROS.encode(), hashlib.sha256(edited).hexdigest().encode(), 1)


def texts(model: Run | Package) -> list[tuple[str, float]]:
    translator = Translator.load(model, "cpu")
    return [(t.text, t.score) for t in translator.translate(LINES)]


def test_float32_package_translates_exactly_as_its_run(run: Run, tmp_path: Path) -> None:
    package = Package.open(write(tmp_path / "a.nmt", pack(run, "float32")))
    assert texts(package) == texts(run)
    assert package.identity == run.identity
    assert package.config.search == run.config.search
    assert package.config.model == run.config.model
    assert package.info.length_statistics == run.info.length_statistics


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2**-11), ("int8", 0.5 / 127)])
def test_weights_are_rounded_within_the_precision_of_their_row(
    run: Run, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    package = Package.open(write(tmp_path / "a.nmt", pack(run, dtype)))  # type: ignore[arg-type]
    _, expected = run.checkpoints.load_best(CPU)
    weights = package.weights()
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        largest = weight.abs().amax(dim=-1, keepdim=True)
        assert ((weights[name] - weight).abs() <= largest * tolerance * 1.01 + 1e-7).all(), name
    package.load_model(CPU)


def test_smaller_types_make_smaller_packages(run: Run) -> None:
    sizes = [len(pack(run, dtype)) for dtype in ("float32", "float16", "int8")]
    assert sizes == sorted(sizes, reverse=True)


def test_same_run_gives_the_same_bytes_in_any_folder(run: Run, data: bytes, tmp_path: Path) -> None:
    copy = tmp_path / run.folder.name
    run.folder.rename(copy)
    try:
        assert pack(Run.open(copy)) == data
    finally:
        copy.rename(run.folder)


def test_no_folder_of_this_machine_is_in_a_package(run: Run, data: bytes) -> None:
    assert str(run.folder.parent).encode() not in data
    assert str(run.config.data.dir.parent).encode() not in data


def test_model_card(run: Run, config_path: Path, tmp_path: Path) -> None:
    config = load_config(
        config_path, [f"run={tmp_path / 'run'}", "data.sources.0.licence=CC BY 4.0"]
    )
    changed = Run(run.folder, config, run.info)
    changed.checkpoints = run.checkpoints
    card = read_info(write(tmp_path / "a.nmt", pack(changed, licence="MIT"))).card
    assert card.model_dump() == {
        "name": "toy", "licence": "MIT", "date": run.info.finished, "finished": True,
        "program": run.info.program, "pairs": 268, "update": 7,
        "sources": [{"name": "toy.tsv", "licence": "CC BY 4.0", "weight": 1.0}],
        "dev": {"bleu": 12.0, "chrf": 34.0, "sentences": 8, "signature": "BLEU|nrefs:1"},
    }  # fmt: skip


def test_package_and_run_form_an_ensemble(config_path: Path, data: bytes, tmp_path: Path) -> None:
    second = make_run(config_path, tmp_path / "second", seed=2)
    translator = Translator.load([write(tmp_path / "a.nmt", data), second.folder], "cpu")
    assert translator.updates == [7, 7]
    assert len(translator.translate(LINES)) == len(LINES)


def test_aligner_is_included_if_requested(run: Run, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(NmtError, match=f"{ALIGNER}: missing"):
        pack(run, with_aligner=True)
    corpus = PackedSet.open(run.config.data.dir, "train")
    aligner = Aligner.learn_and_save(run.folder / ALIGNER, corpus, 1)
    try:
        packed = pack(run, with_aligner=True)
    finally:
        (run.folder / ALIGNER).unlink()
    loaded = load_or_learn(Package.open(write(tmp_path / "a.nmt", packed)))
    assert (loaded.lexicon.forward == aligner.lexicon.forward).all()
    with pytest.raises(NmtError, match="a package without an aligner"):
        load_or_learn(Package.open(write(tmp_path / "b.nmt", data)))


def test_non_finite_and_too_large_weights_are_refused(config_path: Path, tmp_path: Path) -> None:
    run = make_run(config_path, tmp_path / "run")
    _, weights = run.checkpoints.load_best(CPU)
    for value, message in ((1e6, "exceeds the range of float16"), (float("nan"), "non-finite")):
        changed = {**weights, "decoder.embedding.weight": weights["decoder.embedding.weight"] + 0}
        changed["decoder.embedding.weight"][5, 0] = value
        update = run.checkpoints.best().update + 1
        run.checkpoints.save({"update": update}, changed, {"x": torch.zeros(1)}, 99.0)
        with pytest.raises(NmtError, match=message):
            pack(run)


def test_200_flipped_bits_are_refused(data: bytes, tmp_path: Path) -> None:
    generator = random.Random(1)
    size = int.from_bytes(data[:8], "little")
    for number in range(200):
        damaged = bytearray(data)
        # Half of them in the header, which is a small part of the file.
        place = generator.randrange(8 + size) if number % 2 else generator.randrange(len(data))
        damaged[place] ^= 1 << generator.randrange(8)
        path = write(tmp_path / "a.nmt", bytes(damaged))
        with pytest.raises(NmtError, match=r"a\.nmt: "):
            Package.open(path)


@pytest.mark.parametrize("fraction", [0.0, 1e-5, 0.001, 0.01, 0.5, 0.999])
def test_truncated_package_is_refused(data: bytes, tmp_path: Path, fraction: float) -> None:
    path = write(tmp_path / "a.nmt", data[: int(len(data) * fraction)])
    for read in (Package.open, read_info) if fraction < 0.001 else (Package.open,):
        with pytest.raises(NmtError, match=r"a\.nmt: (not a package|damaged)"):
            read(path)


def test_extended_package_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(NmtError, match="damaged"):
        Package.open(write(tmp_path / "a.nmt", data + b"\0"))


def test_other_files_are_not_packages(run: Run, tmp_path: Path) -> None:
    weights = next(run.folder.glob("checkpoints/*/model.safetensors")).read_bytes()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("../../weights", b"\0" * 50_000_000)
    huge_header = (1 << 62).to_bytes(8, "little") + b'{"__metadata__":{"nmt":'
    for content in (b"", "我爱中国\n".encode(), weights, huge_header,
                    (tmp_path / "bomb.zip").read_bytes()):  # fmt: skip
        with pytest.raises(NmtError, match="not a package of nmt"):
            Package.open(write(tmp_path / "a.nmt", content))


def test_renamed_package_is_opened_by_its_content(data: bytes, tmp_path: Path) -> None:
    assert isinstance(open_model(write(tmp_path / "model.bin", data)), Package)
    with pytest.raises(NmtError, match=r"none\.nmt: no such package"):
        open_model(tmp_path / "none.nmt")
    (tmp_path / "folder.nmt").mkdir()
    with pytest.raises(NmtError, match="not a regular file"):
        open_model(tmp_path / "folder.nmt")


def newer(info: dict, _: dict[str, Tensor]) -> None:
    info["format"] = 99


def unknown_key(info: dict, _: dict[str, Tensor]) -> None:
    info["surprise"] = 1


def unknown_config_key(info: dict, _: dict[str, Tensor]) -> None:
    info["config"]["model"]["surprise"] = 1


def path_as_name(_: dict, tensors: dict[str, Tensor]) -> None:
    tensors["../../.bashrc"] = torch.zeros(1, dtype=torch.uint8)


def path_as_weight(_: dict, tensors: dict[str, Tensor]) -> None:
    tensors["weight/../../x"] = torch.zeros(1)


def other_dtype(_: dict, tensors: dict[str, Tensor]) -> None:
    tensors["weight/decoder.embedding.weight"] = torch.zeros(1, dtype=torch.int64)


def no_tokenizer(_: dict, tensors: dict[str, Tensor]) -> None:
    del tensors["src.model"]


def other_tokenizer(_: dict, tensors: dict[str, Tensor]) -> None:
    tensors["src.model"] = tensors["trg.model"].clone()


def invalid_tokenizer(info: dict, tensors: dict[str, Tensor]) -> None:
    tensors["src.model"] = torch.arange(9, dtype=torch.uint8)
    info["tokenizers"]["src"] = hashlib.sha256(bytes(range(9))).hexdigest()


def missing_weight(_: dict, tensors: dict[str, Tensor]) -> None:
    del tensors["weight/decoder.embedding.weight"]


def huge_network(info: dict, _: dict[str, Tensor]) -> None:
    info["config"]["model"]["decoder_hidden"] = 10**7


def no_scale(_: dict, tensors: dict[str, Tensor]) -> None:
    tensors["weight/decoder.embedding.weight"] = torch.zeros(3, 3, dtype=torch.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (newer, "format 99, this program reads up to 1"),
        (unknown_key, r"damaged \(surprise"),
        (unknown_config_key, "unknown key model.surprise"),
        (path_as_name, r"unexpected tensor \.\./\.\./\.bashrc"),
        (path_as_weight, r"damaged \(Unexpected key"),
        (other_dtype, "unexpected tensor weight/decoder.embedding.weight"),
        (no_tokenizer, "src.model differs from its record"),
        (other_tokenizer, "src.model differs from its record"),
        (invalid_tokenizer, "src.model: not a SentencePiece model"),
        (missing_weight, r"damaged \(Missing key"),
        (huge_network, r"damaged \(size mismatch"),
        (no_scale, "no scale for each row"),
    ],
)
def test_crafted_package_with_a_right_checksum_is_refused(
    data: bytes, tmp_path: Path, change: Callable[..., None], message: str
) -> None:
    path = write(tmp_path / "a.nmt", edit(data, change))
    with pytest.raises(NmtError, match=message):
        Package.open(path).load_model(CPU)


def test_package_has_no_test_set(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(NmtError, match="has no test set") as error:
        Package.open(write(tmp_path / "a.nmt", data)).text("test", "src")
    assert "--src FILE --ref FILE" in str(error.value.hint)


def test_bundled_model_is_the_last_default(
    run: Run, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(models, "BUNDLED", tmp_path / "everyday.nmt")
    with pytest.raises(NmtError, match="no finished run"):
        default_model(tmp_path / "none")
    with pytest.raises(NmtError, match="no such run"):
        open_model(Path("everyday"))
    write(tmp_path / "everyday.nmt", data)
    assert default_model(run.folder.parent) == run.folder
    capsys.readouterr()
    assert default_model(tmp_path / "none") == tmp_path / "everyday.nmt"
    assert len(re.findall("everyday", capsys.readouterr().err)) == 1
    assert open_model(Path("everyday")).identity == run.identity
    assert texts(open_model(Path("everyday")))


def test_list_of_models(
    config_path: Path, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "BUNDLED", write(tmp_path / "everyday.nmt", data))
    monkeypatch.chdir(tmp_path)
    folder = Path("packages")
    folder.mkdir()
    write(folder / "a.nmt", data)
    write(folder / "b.nmt", data[:100])
    make_run(config_path, Path("runs/a")).mark_finished(False)
    make_run(config_path, Path("runs/b"))
    (Path("runs/b") / "run.json").write_text("{}")
    rows = [(m.name, m.pairs, m.dev_bleu, m.state) for m in find_models(Path("runs"), folder)]
    assert rows == [
        ("everyday", 268, 12.0, "finished"),
        ("packages/a.nmt", 268, 12.0, "finished"),
        ("packages/b.nmt", None, None, "damaged"),
        ("runs/a", 268, 12.0, "not finished"),
        ("runs/b", None, None, "damaged"),
    ]
