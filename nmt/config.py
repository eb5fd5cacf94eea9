"""The configuration: one YAML file, every key typed, ranged and explained where it stands.

What changes the *model* is here; what changes *where or whether* something runs
(device, batch size of the search, files) is on the command line. Relative paths
start at the folder the command is run in.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nmt.errors import NmtError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Source(_Section):
    """What every source has."""

    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="how often a training pair is packed: 2 twice, 0.5 every second one",
    )
    cap: int | None = Field(
        None,
        ge=1,
        description="most pairs used of it, drawn at random after cleaning; of hsk "
        "most sentences, and most glosses",
    )


class _FileSource(_Source):
    path: Path = Field(description="the file; .gz .bz2 .xz .zst are decompressed, - is stdin")


class _TextSource(_FileSource):
    encoding: Literal["utf-8", "gb18030", "big5", "utf-16"] = Field("utf-8")


class HskSource(_Source):
    """The built-in sample: 4,354 graded sentences of the package ``hsk-sentences-audio``."""

    source: Literal["hsk"]
    glosses: bool = Field(
        True, description="also train on the word glosses of its rows (never dev or test)"
    )


class TsvSource(_TextSource):
    """One file, one pair a line: Chinese, a tab, English."""

    source: Literal["tsv"]
    src: str | None = Field(None, description="name of the Chinese column, in the first line")
    trg: str | None = Field(None, description="name of the English column, in the first line")

    @model_validator(mode="after")
    def _both_or_none(self) -> TsvSource:
        if (self.src is None) != (self.trg is None):
            raise ValueError("source tsv: src and trg go together, both are column names")
        return self


class CsvSource(_TextSource):
    """A table with quotes and commas, the columns named in its first line."""

    source: Literal["csv"]
    src: str = Field("zh", description="name of the Chinese column")
    trg: str = Field("en", description="name of the English column")
    delimiter: str = Field(",", min_length=1, max_length=1)


class JsonlSource(_TextSource):
    """One JSON object a line."""

    source: Literal["jsonl"]
    src: str = Field("zh", description="key of the Chinese text; a.b looks inside a")
    trg: str = Field("en", description="key of the English text")


class ParallelSource(_Source):
    """Two files whose lines correspond."""

    source: Literal["parallel"]
    src: Path = Field(description="Chinese, one sentence a line")
    trg: Path = Field(description="English, the same number of lines")
    encoding: Literal["utf-8", "gb18030", "big5", "utf-16"] = Field("utf-8")


class TmxSource(_FileSource):
    """A translation memory; units of any pair of zh… and en… languages."""

    source: Literal["tmx"]


class PoSource(_FileSource):
    """A gettext catalogue English → Chinese; fuzzy and untranslated entries are empty sides."""

    source: Literal["po"]


class XliffSource(_FileSource):
    """An XLIFF 1.2 or 2.0 file between English and Chinese, in either direction."""

    source: Literal["xliff"]


class MtdataSource(_Source):
    """A data set of the ``mtdata`` catalogue, downloaded on first use."""

    source: Literal["mtdata"]
    id: str = Field(description="as `mtdata list -l zho-eng -id` prints it")


Source = Annotated[
    HskSource
    | TsvSource
    | CsvSource
    | JsonlSource
    | ParallelSource
    | TmxSource
    | PoSource
    | XliffSource
    | MtdataSource,
    Field(discriminator="source"),
]
_SOURCES: dict[str, type[BaseModel]] = {
    "hsk": HskSource, "tsv": TsvSource, "csv": CsvSource, "jsonl": JsonlSource,
    "parallel": ParallelSource, "tmx": TmxSource, "po": PoSource, "xliff": XliffSource,
    "mtdata": MtdataSource,
}  # fmt: skip


class CleanConfig(_Section):
    """Which pairs are dropped. Every drop is counted under the name of its rule.

    `false`, or `null` for a number, switches a rule off.
    """

    control: bool = Field(True, description="drop control and private-use characters, U+FFFD")
    identical: bool = Field(True, description="drop pairs whose sides are alike")
    min_chars: int = Field(1, ge=1, description="shortest side, in characters")
    max_chars: int = Field(400, ge=1, description="longest side, in characters")
    min_pieces: int = Field(1, ge=1, description="shortest training side, in pieces")
    max_pieces: int = Field(100, ge=2, description="longest training side, in pieces")
    max_ratio: float | None = Field(
        9.0, gt=1, description="most English characters per Chinese one, or a ninth of it back"
    )
    require_han: bool = Field(True, description="drop Chinese sides without a Han character")
    forbid_han: bool = Field(True, description="drop English sides with a Han character")
    max_foreign: float | None = Field(
        0.2, ge=0, le=1, description="largest share of letters neither Han nor Latin on a side"
    )
    max_repeats: int | None = Field(
        10, ge=2, description="most times a character or phrase may follow on itself"
    )
    markup: Literal["keep", "unequal", "drop"] = Field(
        "unequal", description="HTML and subtitle codes: drop pairs with any, or those whose "
        "sides differ in them"
    )  # fmt: skip
    numbers: bool = Field(
        True, description="drop pairs with a number of two digits or more that the other side lacks"
    )
    max_sources_per_target: int | Literal["auto"] | None = Field(
        "auto",
        description="drop a target that stands against more different sources than this "
        "(a place-holder, a boilerplate line); auto: 20, or one in a thousand pairs if more",
    )
    duplicates: bool = Field(True, description="keep the first of identical pairs")
    near_duplicates: bool = Field(
        True, description="keep the first of pairs that differ in case, punctuation and spaces only"
    )


class DataConfig(_Section):
    """What ``nmt prepare`` reads and makes."""

    dir: Path = Field(description="where the packed corpus goes")
    sources: list[Source] = Field(min_length=1, description="where training pairs come from")
    dev: int | Source = Field(500, description="pairs to hold out, or a source of its own")
    test: int | Source = Field(500, description="pairs to hold out, or a source of its own")
    seed: int = Field(1, ge=0, description="which pairs are held out")
    keep_out: list[Path] = Field(
        default_factory=list,
        description="files whose sentences, on either side, may not be trained on or held out",
    )
    simplify: bool = Field(True, description="Traditional to Simplified on the model's side")
    unmarked: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of training sources that lose their final mark, so that a sentence "
        "typed without one is a sentence to the model",
    )
    src_vocab: int | Literal["auto"] = Field("auto", description="Chinese pieces")
    trg_vocab: int | Literal["auto"] = Field("auto", description="English pieces")
    clean: CleanConfig = Field(default_factory=lambda: CleanConfig())

    @model_validator(mode="after")
    def _ranges(self) -> DataConfig:
        for key in ("dev", "test"):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"data.{key}: must be at least 1, not {value}")
        for key in ("src_vocab", "trg_vocab"):
            value = getattr(self, key)
            if isinstance(value, int) and not 300 <= value <= 1_000_000:
                raise ValueError(f"data.{key}: must lie in 300 to 1000000, not {value}")
        given = [s for s in (*self.sources, self.dev, self.test) if not isinstance(s, int)]
        paths = [getattr(s, key, None) for s in given for key in ("path", "src", "trg")]
        if sum(str(path) == "-" for path in paths) > 1:
            raise ValueError("data: only one source can be - (standard input)")
        return self


class ModelConfig(_Section):
    """The network of Bahdanau et al. (2015), and its size."""

    attention: Literal["additive", "none"] = Field(
        "additive", description="none: one fixed context vector, the baseline"
    )
    embedding: int = Field(256, ge=1, description="both sides")
    encoder: int = Field(256, ge=1, description="GRU units in each direction")
    encoder_layers: int = Field(1, ge=1, le=8)
    decoder: int = Field(512, ge=1, description="GRU units")
    attention_size: int = Field(512, ge=1, description="units of the additive score")
    attention_query: Literal["state", "state+word"] = Field(
        "state",
        description="what looks for source words: s_{i-1}, as in the paper, or with it the last "
        "word, which s_{i-1} has not read yet",
    )
    source_bridge: bool = Field(
        False,
        description="what is read of a source token holds its own vector beside its state, a short "
        "way from a word to its translation",
    )
    layer_norm: bool = Field(
        False,
        description="normalise what the attention reads, what words give to the decoder's gates, "
        "and in the readout: learns in fewer updates",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        "auto", description="embeddings, encoder states, readout; auto: by the corpus size"
    )
    word_dropout: float = Field(0.1, ge=0, lt=1, description="whole tokens, both sides")


_Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(_Section):
    """How the network is trained and when that ends."""

    seed: int = Field(1, ge=0, description="weights, order, dropout")
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="target tokens in an update, EOS counted, as they are packed; auto: by the "
        "corpus size",
    )
    epochs: int = Field(20, ge=1, description="passes over train")
    max_updates: int | None = Field(None, ge=1, description="stop after so many updates")
    max_minutes: float | None = Field(
        None, gt=0, description="stop in time to validate and save within so many minutes"
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="the highest one")
    warmup: int = Field(200, ge=0, description="updates of linear growth up to it")
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "plateau"] = Field(
        "linear", description="what follows the warm-up"
    )
    hold: float = Field(
        0.3, ge=0, le=1, description="linear, cosine: share of all updates before decay begins"
    )
    budget: Literal["updates", "minutes"] = Field(
        "updates",
        description="linear, cosine: what has run out when decay ends, all updates or "
        "max_minutes; the rate then follows the clock, so no two trainings are alike",
    )
    plateau_factor: float = Field(
        0.7, gt=0, lt=1, description="plateau: what the rate is multiplied by"
    )
    plateau_patience: int = Field(
        2, ge=1, description="plateau: validations without a better dev BLEU before that"
    )
    adam_betas: tuple[_Beta, _Beta] = Field((0.9, 0.98), description="of Adam's two averages")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, apart from the gradient")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights that are validated and used"
    )
    subword_sampling: float | None = Field(
        None,
        ge=0,
        description="cut training sentences anew each time: one of their 16 best segmentations, "
        "drawn by its probability to this power (Kudo 2018, alpha); null: the best always",
    )
    guided_alignment: float = Field(
        0.0,
        ge=0,
        description="weight of a loss that draws the attention to a statistical word alignment "
        "of the training pairs (Chen et al. 2016); 0: none",
    )
    agreement: float = Field(
        0.0,
        ge=0,
        description="weight of a loss that is smaller the more two passes over the same batch, "
        "with different dropout, predict alike (R-Drop, Liang et al. 2021; half their alpha): "
        "an update takes twice as long; 0: one pass",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of products with weights; weights, states, softmax and loss stay in float32. "
        "auto: bfloat16 where the processor multiplies it faster",
    )
    validate_every: float = Field(1.0, gt=0, description="epochs between validations")
    validate_sentences: int = Field(500, ge=1, description="of dev, evenly spread over it")
    patience: int = Field(10, ge=1, description="validations without a better dev BLEU")
    keep_best: int = Field(1, ge=1, description="checkpoints kept by dev BLEU, besides the last")
    average_best: int = Field(
        1, ge=1, description="at the end, average this many best checkpoints; 1: none"
    )
    save_every: float = Field(1.0, gt=0, description="minutes between checkpoints")
    samples: int = Field(4, ge=0, description="dev sentences shown at each validation")

    @model_validator(mode="after")
    def _budget_of_minutes(self) -> TrainConfig:
        if self.budget == "minutes" and self.max_minutes is None:
            raise ValueError("train.budget: minutes needs train.max_minutes")
        return self


class SearchConfig(_Section):
    """How translations are searched for, in validation and by default afterwards."""

    beam: int = Field(5, ge=1, le=1000)
    alpha: float = Field(0.8, ge=0, le=5, description="exponent of the length penalty")
    max_ratio: float = Field(3.0, gt=0, description="most output tokens per source token")
    beta: float = Field(0.0, ge=0, le=5, description="weight of the coverage penalty; 0 is none")
    no_repeat: int = Field(
        0, ge=0, le=20, description="no run of so many pieces twice in a translation; 0 allows all"
    )


class Config(_Section):
    """A whole configuration."""

    run: Path = Field(description="where the trained model and its journal go")
    data: DataConfig
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    train: TrainConfig = Field(default_factory=lambda: TrainConfig())
    search: SearchConfig = Field(default_factory=lambda: SearchConfig())

    @model_validator(mode="after")
    def _passes_that_differ(self) -> Config:
        if self.train.agreement and not (self.model.dropout or self.model.word_dropout):
            raise ValueError(
                "train.agreement: both passes are alike without model.dropout or model.word_dropout"
            )
        return self


class _Loader(yaml.SafeLoader):
    """YAML as people write it: repeated keys are errors, ``1e-3`` is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # <<: *name, which is replaced by what stands there
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a configuration file and apply ``section.key=value`` overrides.

    Raises:
        NmtError: missing file, not YAML, or a key that is unknown, repeated, of
            the wrong type or out of range; the message names the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NmtError(
            f"{path}: no such configuration file",
            "the ones to start from are in the folder configs/ of a clone",
        ) from None
    except UnicodeDecodeError:
        raise NmtError(f"{path}: not valid UTF-8, so not a configuration file") from None
    except OSError as error:
        raise NmtError(f"{path}: {error.strerror}") from error
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise NmtError(f"{path}: not a configuration: no sections in it")
    for override in overrides or []:
        _override(tree, override)
    return build_config(tree, str(path))


def build_config(tree: dict[str, Any], origin: str) -> Config:
    """Check a tree of plain values and make it a `Config`.

    Raises:
        NmtError: with `origin`, the key, and what would have been right.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, origin) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML, every default written out."""
    return yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = origin if mark is None else f"{origin}:{mark.line + 1}"
        raise NmtError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise NmtError(
            f"--set {override}: not of the form section.key=value",
            "for example: --set train.epochs=5",
        )
    node: Any = tree
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise NmtError(
                    f"--set {override}: {'.'.join(parts[:depth])} is a list of {len(node)}, "
                    f"{part} is not a place in it"
                )
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
            if not last:
                node.setdefault(part, {})
        else:
            raise NmtError(f"--set {override}: {'.'.join(parts[:depth])} has no keys under it")
        if last:
            # Alone, a dash would begin a list.
            node[index] = value if value == "-" else _parse(value, f"--set {override}")
        else:
            node = node[index]


def _explain(error: ValidationError, origin: str) -> NmtError:
    first = min(error.errors(), key=_unlikely)
    # A discriminated union puts its tag into the location; it is no key of the file.
    tags = {*_SOURCES, "int", "float", "literal['auto']", "constrained-int", "constrained-float"}
    parts = [str(part) for part in first["loc"]]
    key = ".".join(p for p in parts if p not in tags and not p.startswith("tagged-union"))
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(parts)
        close = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        return NmtError(f"{origin}: unknown key {key}", hint)
    if kind == "missing":
        return NmtError(f"{origin}: key {key} is missing")
    if kind == "value_error":
        return NmtError(f"{origin}: {str(first['msg']).removeprefix('Value error, ')}")
    if kind == "union_tag_invalid":
        return NmtError(
            f"{origin}: {key}: unknown source {_get(given, 'source')!r}", _close_source(given)
        )
    if kind == "union_tag_not_found":
        return NmtError(f"{origin}: {key}: key source is missing", f"one of: {', '.join(_SOURCES)}")
    message = str(first["msg"])
    return NmtError(f"{origin}: {key}: {message[0].lower()}{message[1:]}, not {given!r}")


def _unlikely(error: Any) -> int:
    """Which of several errors to tell: the lowest, of equals the first."""
    if error["type"] == "extra_forbidden":
        return 0  # misspelt, a key is unknown and missing
    # Of a number or a source, a section that stands there is meant to be a source.
    return 2 if error["type"] == "int_type" and isinstance(error["input"], dict) else 1


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else value


def _close_source(given: Any) -> str:
    close = difflib.get_close_matches(str(_get(given, "source")), _SOURCES, n=1)
    return f"did you mean {close[0]}?" if close else f"one of: {', '.join(_SOURCES)}"


def _known_keys(parts: list[str]) -> list[str]:
    """The keys allowed beside the unknown one, read off the models themselves."""
    sections: dict[str, type[BaseModel]] = {
        "data": DataConfig, "model": ModelConfig, "train": TrainConfig, "search": SearchConfig,
        "clean": CleanConfig, **_SOURCES,
    }  # fmt: skip
    for part in reversed(parts[:-1]):
        if part in sections:
            return list(sections[part].model_fields)
    return list(Config.model_fields)
