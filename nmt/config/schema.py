"""The sections of the configuration: every key typed, ranged and described."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nmt.config.sources import Source, _Section


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
    exclude: list[Path] = Field(
        default_factory=list,
        description="files whose sentences, on either side, may not be trained on or held out",
    )
    to_simplified: bool = Field(True, description="Traditional to Simplified on the model's side")
    drop_final_punctuation: float = Field(
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
    embedding_dim: int = Field(256, ge=1, description="both sides")
    encoder_hidden: int = Field(256, ge=1, description="GRU units in each direction")
    encoder_layers: int = Field(1, ge=1, le=8)
    decoder_hidden: int = Field(512, ge=1, description="GRU units")
    attention_hidden: int = Field(512, ge=1, description="units of the additive score")
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
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt"] = Field(
        "linear", description="what follows the warm-up"
    )
    decay_start: float = Field(
        0.3, ge=0, le=1, description="linear, cosine: share of all updates before decay begins"
    )
    schedule_by: Literal["updates", "minutes"] = Field(
        "updates",
        description="linear, cosine: what has run out when decay ends, all updates or "
        "max_minutes; the rate then follows the clock, so no two trainings are alike",
    )
    adam_betas: tuple[_Beta, _Beta] = Field((0.9, 0.98), description="of Adam's two averages")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, apart from the gradient")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights that are validated and used"
    )
    guided_alignment: float = Field(
        0.0,
        ge=0,
        description="weight of a loss that draws the attention to a statistical word alignment "
        "of the training pairs (Chen et al. 2016); 0: none",
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
    save_every: float = Field(1.0, gt=0, description="minutes between checkpoints")
    log_samples: int = Field(4, ge=0, description="dev sentences shown at each validation")

    @model_validator(mode="after")
    def _budget_of_minutes(self) -> TrainConfig:
        if self.schedule_by == "minutes" and self.max_minutes is None:
            raise ValueError("train.schedule_by: minutes needs train.max_minutes")
        return self


class SearchConfig(_Section):
    """How translations are searched for, in validation and by default afterwards."""

    beam: int = Field(5, ge=1, le=1000)
    length_penalty: float = Field(0.8, ge=0, le=5, description="exponent of the length penalty")
    max_ratio: float = Field(3.0, gt=0, description="most output tokens per source token")
    coverage_penalty: float = Field(
        0.0, ge=0, le=5, description="weight of the coverage penalty; 0 is none"
    )
    no_repeat_ngram: int = Field(
        0, ge=0, le=20, description="no run of so many pieces twice in a translation; 0 allows all"
    )


class Config(_Section):
    """A whole configuration."""

    run: Path = Field(description="where the trained model and its journal go")
    data: DataConfig
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    train: TrainConfig = Field(default_factory=lambda: TrainConfig())
    search: SearchConfig = Field(default_factory=lambda: SearchConfig())
