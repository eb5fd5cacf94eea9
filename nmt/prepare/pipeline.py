"""The road of a corpus: read, clean, split, learn pieces, pack. Text is never held whole.

Three passes. The first streams the sources through the cleaning rules, in all processes,
and writes the survivors to a scratch file, with 64-bit keys of them beside it. The second
decides on those keys alone: duplicates, place-holders, dev and test. The third streams
the scratch file again, trains the tokenizers on a sample of what is train and packs it.

The output folder appears whole or not at all (`nmt.io.write.replacing_folder`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import nmt
from nmt.config.schema import Config, DataConfig
from nmt.config.sources import (
    CsvSource,
    JsonlSource,
    MtdataSource,
    ParallelSource,
    Source,
    TsvSource,
)
from nmt.data.packed import SIDES, PackedWriter
from nmt.data.tokenizer import Tokenizer
from nmt.errors import NmtError
from nmt.io.read import Meter, open_bytes
from nmt.io.write import file_sha256, is_pipe, replacing_folder
from nmt.log import say, warn
from nmt.prepare import chunks, leaks, report
from nmt.prepare import holdout as split
from nmt.prepare.chunks import Cleaned, Drops, Encoded, Pool, chunked
from nmt.prepare.decide import CorpusKeys, Decisions, Span, nothing_left
from nmt.prepare.keys import BLOCK, scatter
from nmt.prepare.pieces import Sample, train_both
from nmt.prepare.sources import (
    Pair,
    describe,
    read_extra_pairs,
    read_pairs,
    source_files,
)
from nmt.prepare.statistics import Statistics

FORMAT = 2
MANIFEST = "manifest.json"
_MADE = {
    MANIFEST, "report.html", *(f"{side}.model" for side in SIDES),
    *(f"{name}.{side}.txt" for name in ("dev", "test") for side in SIDES),
    *(f"train.{side}.{part}.npy" for side in SIDES for part in ("ids", "ends")),
}  # fmt: skip
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # of programs that show folders
_IN_LINES = (TsvSource, CsvSource, JsonlSource, ParallelSource, MtdataSource)

Manifest = dict[str, Any]


def prepare(
    config: Config, workers: int | None = None, check: Iterable[Path] = ()
) -> tuple[Manifest, bool]:
    """Make the packed corpus that `config.data` asks for.

    Args:
        config: of the data, only `config.data` is looked at.
        workers: processes to use; None for as many as there are cores. The output does
            not depend on it.
        check: files whose sentences may not be among the training pairs.

    Returns:
        The manifest, and whether there was anything to do: False if the corpus is
        there already, made from the same files with the same configuration.

    Raises:
        NmtError: anything wrong with the sources, or a training pair meets a file of
            `check`; the old output stays.
    """
    data = config.data
    identity = _identity(data)
    # Read before anything is done, so that what is wrong with them is said at once.
    checked = leaks.files_keys(check, simplify=data.to_simplified)
    old = _read_if_current(data.dir, identity)
    if old is not None:
        leaks.refuse(data.dir, checked, simplify=data.to_simplified)
        return old, False
    if data.dir.exists() and not data.dir.is_dir():
        raise NmtError(f"{data.dir}: is a file, data.dir names a folder")
    if data.dir.exists() and not (data.dir / MANIFEST).is_file() and any(data.dir.iterdir()):
        raise NmtError(
            f"{data.dir}: is there and was not made by nmt prepare; it will not be replaced",
            "name another folder in data.dir, or move this one away",
        )
    strange = sorted({path.name for path in data.dir.glob("*")} - _MADE - _LITTER)
    if strange:
        raise NmtError(
            f"{data.dir}: holds {strange[0]}, which nmt prepare did not make; "
            "it will not be replaced",
            "name another folder in data.dir, or move what is yours out of this one",
        )
    with replacing_folder(data.dir) as scratch:
        manifest = _Preparation(data, scratch, workers).run(identity)
        leaks.refuse(scratch, checked, simplify=data.to_simplified)
        return manifest, True


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a packed corpus.

    Raises:
        NmtError: not prepared, damaged, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NmtError(
            f"{folder}: no prepared corpus here", "run nmt prepare with the same --config first"
        ) from None
    except (OSError, ValueError) as error:
        raise NmtError(f"{path}: damaged ({error})", "run nmt prepare again") from error
    if manifest.get("format") != FORMAT:
        raise NmtError(
            f"{path}: corpus format {manifest.get('format')}, this program reads {FORMAT}",
            "run nmt prepare again",
        )
    return manifest


def check_prepared(data: DataConfig, manifest: Manifest) -> None:
    """Refuse a corpus that was made in another way than text will be treated later on.

    What says where its text came from may differ: that is in the manifest.

    Raises:
        NmtError: with both values.
    """
    of = manifest["config"]
    for key, was, now in (
        ("data.to_simplified", of["to_simplified"], data.to_simplified),
        ("data.clean.max_pieces", of["clean"]["max_pieces"], data.clean.max_pieces),
    ):
        if was != now:
            raise NmtError(
                f"{data.dir}: was prepared with {key}={was}, the configuration says {now}",
                "run nmt prepare with the same --config and --set, or put the key back",
            )


def _identity(data: DataConfig) -> Manifest:
    """Everything the output depends on, but for what comes from standard input."""
    paths = [path for source in _all_sources(data) for path in source_files(source)]
    files = {str(path): _hash_source(path) for path in [*paths, *data.exclude]}
    config = data.model_dump(mode="json", exclude={"dir"})
    return {"format": FORMAT, "program": nmt.__version__, "config": config, "sources": files}


def _all_sources(data: DataConfig) -> list[Source]:
    return [*data.sources, *(s for s in (data.dev, data.test) if not isinstance(s, int))]


def _hash_source(path: Path) -> str | None:
    if str(path) == "-":
        return None
    if is_pipe(path):
        raise NmtError(
            f"{path}: is a pipe, which can be read only once; a file is needed",
            "for one source, path: - reads what is piped into the command",
        )
    with open_bytes(path):
        pass  # for its message if the file is missing
    return file_sha256(path)


def _read_if_current(folder: Path, identity: Manifest) -> Manifest | None:
    if None in identity["sources"].values():
        return None  # standard input may be other text every time
    try:
        manifest = load_manifest(folder)
    except NmtError:
        return None
    same = all(manifest.get(key) == value for key, value in identity.items())
    intact = all(
        (folder / name).is_file() and file_sha256(folder / name) == digest
        for name, digest in manifest.get("files", {}).items()
    )
    return manifest if same and intact else None


class _Preparation:
    """The state of one `prepare`: what was counted, and where the keys of the kept are."""

    def __init__(self, data: DataConfig, folder: Path, workers: int | None) -> None:
        self.data = data
        self.folder = folder
        self.workers = workers
        self.drops = Drops()
        self.read: dict[str, int] = {}
        self.statistics = Statistics()
        self.warnings: list[str] = []
        self.spans: list[Span] = []
        self.repeated = 0
        self.scratch = folder / "kept.tmp"
        self.keys = CorpusKeys(folder)

    def run(self, identity: Manifest) -> Manifest:
        files = {name: self._read_held(name) for name in ("dev", "test")}
        kept_out = leaks.files_keys(self.data.exclude, simplify=self.data.to_simplified)
        ordinary = self._clean()
        read = sum(self.read.values())
        if not len(self.keys):
            raise nothing_left(read, self.drops)
        say(f"deciding on {len(self.keys):,} pairs")
        decisions = Decisions(self.data, self.keys, self.spans, read, self.drops)
        given = [pair for pairs in files.values() for pair in pairs]
        decisions.decide(ordinary, given, kept_out)
        places = decisions.places
        held, sample = self._gather(places, decisions.examples)
        for name, pairs in files.items():
            _write_text(self.folder, name, pairs or held[name])
        tokenizers = self._train_tokenizers(sample)
        train = self._pack(places, tokenizers)
        self.scratch.unlink()
        self.keys.remove()
        sizes = {name: len(files[name] or held[name]) for name in files}
        self._check_counts(train, {n: c for n, c in sizes.items() if not files[n]})
        return self._write_manifest(identity, tokenizers, train, sizes)

    def _read_held(self, name: str) -> list[Pair]:
        """The pairs of a dev or test set given as a source; empty if it is a number.

        Such a set is taken as it is, in order: it is the user's ruler. But what is not translated
        in a format of units is no line of it.
        """
        source = getattr(self.data, name)
        if isinstance(source, int):
            return []
        if source.cap is not None:
            raise NmtError(f"data.{name}: takes no cap, it is used whole")
        pairs = list(read_pairs(source))
        if not pairs:
            raise NmtError(f"data.{name}: {describe(source)} holds no pairs")
        if isinstance(source, _IN_LINES):
            return pairs
        whole = [pair for pair in pairs if pair.src.strip() and pair.trg.strip()]
        if not whole:
            raise NmtError(f"data.{name}: {describe(source)} holds no pair with both sides")
        if len(whole) < len(pairs):
            say(f"data.{name}: {len(pairs) - len(whole):,} without one of their sides left out")
        return whole

    def _clean(self) -> int:
        """First pass. Returns how many kept pairs may be held out; the others come after."""
        paths = [path for source in self.data.sources for path in source_files(source)]
        meter = Meter(sum(path.stat().st_size for path in paths if path.is_file()))
        with (
            self.scratch.open("wb") as kept,
            self.keys,
            Pool(self.workers) as workers,
            tqdm(desc="cleaning", unit=" pairs", unit_scale=True, disable=None, leave=False) as bar,
        ):
            for source in self.data.sources:
                with contextlib.closing(read_pairs(source, meter)) as pairs:
                    self._collect(source, describe(source), pairs, kept, workers, bar, meter)
            ordinary = len(self.keys)
            for source in self.data.sources:
                name = f"{describe(source)}, word glosses (train only)"
                extra = read_extra_pairs(source)
                self._collect(source, name, extra, kept, workers, bar, meter)
        return ordinary

    def _collect(
        self, source: Source, name: str, pairs: Iterable[Pair], kept: IO[bytes],
        workers: Pool, bar: tqdm[Any], meter: Meter,
    ) -> None:  # fmt: skip
        work = functools.partial(
            chunks.clean_chunk,
            self.data.clean,
            self.data.to_simplified,
            self.data.drop_final_punctuation,
        )
        begin, count = len(self.keys), 0
        results: Iterator[Cleaned] = workers.map(work, chunked(map(tuple, pairs)))
        for done in results:
            count += done.read
            kept.write(done.lines)
            self.keys.add(done.keys)
            self.drops.add(done.drops)
            self.statistics.add(done.statistics)
            bar.update(done.read)
            if meter.fraction:
                bar.total = round(bar.n / meter.fraction)
        if count:
            self.read[name] = self.read.get(name, 0) + count
        self.spans.append(Span(begin, len(self.keys), source.weight, source.cap))

    def _gather(
        self, places: split.Places, examples: dict[int, str]
    ) -> tuple[dict[str, list[Pair]], Sample]:
        """Read the scratch file once for dev, test, examples and the tokenizers' sample."""
        held: dict[str, list[Pair]] = {"dev": [], "test": []}
        train = int(np.count_nonzero(places == split.TRAIN))
        sample = Sample(self.folder, train)
        with self.scratch.open("rb") as lines, sample:
            both = tqdm(
                zip(lines, _plain(places), strict=True), total=len(places), desc="dividing",
                unit=" pairs", unit_scale=True, disable=None, leave=False,
            )  # fmt: skip
            for position, (line, place) in enumerate(both):
                if place == split.TRAIN:
                    sample.offer(line)
                elif place == split.DEV:
                    held["dev"].append(chunks.raw_pair(line))
                elif place == split.TEST:
                    held["test"].append(chunks.raw_pair(line))
                elif position in examples:
                    self.drops.drop(examples[position], chunks.raw_pair(line), 0)
        return held, sample

    def _train_tokenizers(self, sample: Sample) -> tuple[Tokenizer, Tokenizer]:
        auto = auto_vocab(sample.total)
        src, trg = self.data.src_vocab, self.data.trg_vocab
        sizes = auto[0] if src == "auto" else src, auto[1] if trg == "auto" else trg
        say(f"learning {sizes[0]:,} Chinese and {sizes[1]:,} English pieces")
        tokenizers, warnings = train_both(
            sample, sizes, (src == "auto", trg == "auto"),
            simplify=self.data.to_simplified, workers=self.workers,
        )  # fmt: skip
        for warning in warnings:
            self.warnings.append(warning)
            warn(warning)
        if any(len(made) > size for made, size in zip(tokenizers, sizes, strict=True)):
            say("more, for the characters there are; the sizes are ours to choose")
        for name, tokenizer in zip(("src", "trg"), tokenizers, strict=True):
            (self.folder / f"{name}.model").write_bytes(tokenizer.model)
        return tokenizers

    def _pack(
        self, places: split.Places, tokenizers: tuple[Tokenizer, Tokenizer]
    ) -> dict[str, int]:
        """Third pass."""
        limits = self.data.clean.min_pieces, self.data.clean.max_pieces
        work = functools.partial(chunks.encode_chunk, self.folder, self.data.to_simplified, limits)
        counts = dict.fromkeys(("pairs", "src_pieces", "trg_pieces"), 0)
        total = int(np.count_nonzero(places == split.TRAIN))
        with (
            PackedWriter(self.folder, "train", (len(tokenizers[0]), len(tokenizers[1]))) as out,
            Pool(self.workers) as workers,
            tqdm(
                total=total, desc="packing", unit=" pairs", unit_scale=True, disable=None,
                leave=False,
            ) as bar,
        ):  # fmt: skip
            results: Iterator[Encoded] = workers.map(work, self._training_lines(places))
            for done in results:
                out.add(done.ids, done.lengths)
                self.drops.add(done.drops)
                self.statistics.add(done.statistics)
                counts["pairs"] += len(done.lengths[0])
                counts["src_pieces"] += len(done.ids[0])
                counts["trg_pieces"] += len(done.ids[1])
                bar.update(len(done.lengths[0]))
        if not counts["pairs"]:
            raise NmtError(
                f"no training pair has {limits[0]} to {limits[1]} pieces on both sides",
                "raise data.clean.max_pieces",
            )
        return counts

    def _training_lines(self, places: split.Places) -> Iterator[tuple[list[bytes], list[int]]]:
        """Scratch lines of training pairs, and how often each is packed for its weight."""
        with self.scratch.open("rb") as lines:
            for start in range(0, len(places), chunks.CHUNK):
                block = list(itertools.islice(lines, chunks.CHUNK))
                copies = self._copies(start, places[start : start + chunks.CHUNK])
                wanted = copies > 0
                if wanted.any():
                    yield list(itertools.compress(block, wanted)), copies[wanted].tolist()

    def _copies(self, start: int, places: split.Places) -> NDArray[np.int64]:
        copies: NDArray[np.int64] = (places == split.TRAIN).astype(np.int64)
        for span in self.spans:
            low = max(span.begin - start, 0)
            high = min(span.end - start, len(places))
            if span.weight == 1.0 or low >= high:
                continue
            part = copies[low:high]
            draw = scatter(np.arange(start + low, start + high), 10**6)
            times = int(span.weight) + (draw < round(span.weight % 1 * 1e6))
            left_out = int(np.count_nonzero(part[times == 0]))
            if left_out:
                self.drops.counts["left out by the weight of its source"] += left_out
            self.repeated += int((part * np.maximum(times - 1, 0)).sum())
            part *= times
        return copies

    def _check_counts(self, train: dict[str, int], drawn: dict[str, int]) -> None:
        """Nothing was lost in silence: a failure here is a bug of ours."""
        read = sum(self.read.values()) + self.repeated
        kept = train["pairs"] + sum(drawn.values())
        assert read == self.drops.counts.total() + kept, (read, self.drops.counts, kept)

    def _write_manifest(
        self,
        identity: Manifest,
        tokenizers: tuple[Tokenizer, Tokenizer],
        train: dict[str, int],
        held: dict[str, int],
    ) -> Manifest:
        by_side = dict(zip(("src", "trg"), tokenizers, strict=True))
        dropped = {reason: n for reason, n in self.drops.counts.most_common() if n}
        known = identity | {
            "read": self.read,
            "train": train,
            "dev": {"pairs": held["dev"]},
            "test": {"pairs": held["test"]},
            "repeated": self.repeated,
            "dropped": dropped,
            "examples": {reason: self.drops.examples(reason) for reason in dropped},
            "warnings": self.warnings,
            "statistics": self.statistics.described(by_side),
            "tokenizers": {
                side: {"pieces": len(t), "simplify": t.simplify, "sha256": t.sha256}
                for side, t in by_side.items()
            },
            "python": platform.python_version(),
        }
        # Through JSON once, so that a fresh manifest equals one read back.
        manifest: Manifest = json.loads(json.dumps(known))
        report.write_html(self.folder, manifest)
        manifest["files"] = {p.name: file_sha256(p) for p in sorted(self.folder.iterdir())}
        text = json.dumps(manifest, ensure_ascii=False, indent=1)
        (self.folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return manifest


def _plain(places: split.Places) -> Iterator[int]:
    """Plain numbers, made a block at a time: a list of all would cost eight bytes each."""
    for start in range(0, len(places), BLOCK):
        yield from places[start : start + BLOCK].tolist()


def _write_text(folder: Path, name: str, pairs: list[Pair]) -> None:
    """Raw text for validation and scoring: references are never rewritten."""
    for side in ("src", "trg"):
        # A source of another form than lines may hold a line end inside a sentence.
        lines = (getattr(pair, side).replace("\n", " ") + "\n" for pair in pairs)
        with (folder / f"{name}.{side}.txt").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)


def auto_vocab(pairs: int) -> tuple[int, int]:
    """Pieces for the Chinese and the English side of so many training pairs.

    Small corpora want small vocabularies: with 5,000 sentences, 2,000 pieces instead
    of 14,000 gave 4.9 BLEU more (Sennrich & Zhang 2019, Table 2).
    """
    for most, sizes in (
        (15_000, (4000, 3000)),
        (50_000, (5000, 4000)),
        (200_000, (8000, 8000)),
        (1_000_000, (12000, 12000)),
    ):
        if pairs <= most:
            return sizes
    return 16000, 16000
