"""The sections of the configuration: every key typed, ranged and described."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nmt.config.sources import FilePath, Source, _Section


class CleanConfig(_Section):
    """Rules that drop pairs. Each drop is counted under the name of its rule.

    `false`, or `null` for a number, disables a rule.
    """

    control: bool = Field(True, description="drop control and private-use characters, U+FFFD")
    identical: bool = Field(True, description="drop pairs whose sides are equal")
    min_chars: int = Field(1, ge=1, description="minimum characters of a side")
    max_chars: int = Field(400, ge=1, description="maximum characters of a side")
    min_pieces: int = Field(1, ge=1, description="minimum pieces of a training side")
    max_pieces: int = Field(100, ge=2, description="maximum pieces of a training side")
    max_ratio: float | None = Field(
        9.0,
        gt=1,
        description="maximum English characters per Chinese character; reversed, a ninth of it",
    )
    require_han: bool = Field(True, description="drop Chinese sides without a Han character")
    forbid_han: bool = Field(True, description="drop English sides with a Han character")
    max_foreign: float | None = Field(
        0.2,
        ge=0,
        le=1,
        description="maximum share of the letters of a side that are neither Han nor Latin",
    )
    max_repeats: int | None = Field(
        10, ge=2, description="maximum repetitions of a character or phrase in a row"
    )
    markup: Literal["keep", "unequal", "drop"] = Field(
        "unequal", description="HTML and subtitle codes: drop pairs with any, or those whose "
        "sides differ in them"
    )  # fmt: skip
    numbers: bool = Field(
        True,
        description="drop pairs with a number of two or more digits without equivalent on the "
        "other side",
    )
    max_sources_per_target: int | Literal["auto"] | None = Field(
        "auto",
        description="drop targets with more different sources than this "
        "(placeholders, boilerplate); auto: 20, or 0.1 % of the pairs if that is more",
    )
    duplicates: bool = Field(True, description="keep only the first of identical pairs")
    near_duplicates: bool = Field(
        True,
        description="keep only the first of pairs that differ only in case, punctuation and spaces",
    )


class DataConfig(_Section):
    """Input and output of ``nmt prepare``."""

    dir: FilePath = Field(description="folder of the packed corpus")
    sources: list[Source] = Field(min_length=1, description="sources of training pairs")
    dev: int | Source = Field(500, description="number of pairs to hold out, or a source")
    test: int | Source = Field(500, description="number of pairs to hold out, or a source")
    seed: int = Field(1, ge=0, description="of the selection of held-out pairs")
    exclude: list[FilePath] = Field(
        default_factory=list,
        description="text files; pairs that share a sentence with one, on either side, are dropped",
    )
    to_simplified: bool = Field(
        True, description="convert the Chinese side to Simplified for the model"
    )
    drop_final_punctuation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of training sources whose final punctuation is removed, so that the "
        "model accepts sentences typed without it",
    )
    protect: list[str] = Field(
        default_factory=list,
        description="regular expressions of text to copy unchanged, besides URLs, tags, "
        "placeholders, codes and long numbers",
    )
    src_vocab: int | Literal["auto"] = Field(
        "auto", description="vocabulary size of the Chinese side; auto: by the corpus size"
    )
    trg_vocab: int | Literal["auto"] = Field(
        "auto", description="vocabulary size of the English side; auto: by the corpus size"
    )
    tokenizers: FilePath | None = Field(
        None,
        description="run directory or package whose tokenizers are used, instead of new ones",
    )
    clean: CleanConfig = Field(default_factory=lambda: CleanConfig())

    @model_validator(mode="after")
    def _check_ranges(self) -> DataConfig:
        for key in ("dev", "test"):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"data.{key}: must be at least 1, not {value}")
        for key in ("src_vocab", "trg_vocab"):
            value = getattr(self, key)
            if isinstance(value, int) and not 300 <= value <= 1_000_000:
                raise ValueError(f"data.{key}: must be between 300 and 1000000, not {value}")
            if self.tokenizers is not None and value != "auto":
                raise ValueError(f"data.{key}: {value} contradicts data.tokenizers; remove it")
        sources = [s for s in (*self.sources, self.dev, self.test) if not isinstance(s, int)]
        paths = [getattr(s, key, None) for s in sources for key in ("path", "src", "trg")]
        if sum(str(path) == "-" for path in paths) > 1:
            raise ValueError("data: only one source can be - (standard input)")
        return self


class ModelConfig(_Section):
    """Architecture and size of the network (Bahdanau et al. 2015)."""

    attention: Literal["additive", "none"] = Field(
        "additive", description="none: a fixed context vector per sentence, the baseline"
    )
    embedding_dim: int = Field(256, ge=1, description="embedding size of both sides")
    encoder_hidden: int = Field(256, ge=1, description="GRU units per direction")
    encoder_layers: int = Field(1, ge=1, le=8)
    decoder_hidden: int = Field(512, ge=1, description="GRU units")
    attention_hidden: int = Field(512, ge=1, description="hidden units of the additive score")
    attention_query: Literal["state", "state+word"] = Field(
        "state+word",
        description="attention query: s_{i-1} as in the paper, or with the embedding of the "
        "previous target token, which s_{i-1} does not include",
    )
    source_bridge: bool = Field(
        False,
        description="add the projected source embedding to each encoder state in the context "
        "(source-side bridging)",
    )
    layer_norm: bool = Field(
        True,
        description="layer normalisation of the encoder states, the input pre-activations of the "
        "decoder, and the readout: converges in fewer updates",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        "auto", description="on embeddings, encoder states and readout; auto: by the corpus size"
    )
    word_dropout: float = Field(
        0.1, ge=0, lt=1, description="probability of zeroing the embedding of a token, both sides"
    )


_Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(_Section):
    """Optimisation, and when training ends."""

    seed: int = Field(1, ge=0, description="of initial weights, data order and dropout")
    start_from: FilePath | None = Field(
        None,
        description="run directory or package whose weights training starts from; the model "
        "section follows it where left out; needs data.tokenizers",
    )
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="target tokens per update, EOS included; auto: by the corpus size",
    )
    epochs: int = Field(20, ge=1, description="maximum passes over the training data")
    max_updates: int | None = Field(None, ge=1, description="stop after this number of updates")
    max_minutes: float | None = Field(
        None, gt=0, description="stop early enough to validate and save within this time"
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    warmup: int = Field(200, ge=0, description="updates of linear warm-up to the peak")
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt"] = Field(
        "linear", description="learning rate after the warm-up"
    )
    decay_start: float = Field(
        0.3, ge=0, le=1, description="linear, cosine: fraction of the training before decay begins"
    )
    schedule_by: Literal["updates", "minutes"] = Field(
        "updates",
        description="linear, cosine: whether decay is driven by updates or by max_minutes; with "
        "minutes the rate follows the clock and training is not reproducible",
    )
    adam_betas: tuple[_Beta, _Beta] = Field(
        (0.9, 0.98), description="decay rates of AdamW's moment estimates"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of AdamW")
    clip: float = Field(1.0, gt=0, description="maximum norm of the gradient")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="decay of the exponential moving average of the weights, used for validation "
        "and translation; 0: none; auto: 0.999, with start_from by the corpus size",
    )
    guided_alignment: float = Field(
        0.1,
        ge=0,
        description="weight of the cross-entropy between attention and a statistical word "
        "alignment (Chen et al. 2016); 0: none",
    )
    joined_pairs: float = Field(
        0.0,
        ge=0,
        le=2,
        description="pairs made of two or three training pairs, as a fraction of the training "
        "pairs; others in each epoch",
    )
    span_pairs: float = Field(
        0.05,
        ge=0,
        le=2,
        description="pairs with words replaced by the symbols of protected spans, as a fraction "
        "of the training pairs; others in each epoch; needs guided_alignment",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of matrix products; weights, states, softmax and loss stay in float32. "
        "auto: bfloat16 where the hardware supports it",
    )
    validate_every: float = Field(1.0, gt=0, description="epochs between validations")
    validate_sentences: int = Field(
        500, ge=1, description="dev sentences per validation, evenly spaced"
    )
    also_validate: list[FilePath] = Field(
        default_factory=list,
        description="run directories or prepared corpora whose dev sets are scored too",
    )
    patience: int = Field(
        10, ge=1, description="stop after this number of validations without a better dev BLEU"
    )
    keep_best: int = Field(
        1, ge=1, description="number of checkpoints to keep by dev BLEU, in addition to the last"
    )
    save_every: float = Field(1.0, gt=0, description="minutes between checkpoints")
    log_samples: int = Field(
        4, ge=0, description="translated dev sentences to log at each validation"
    )

    @model_validator(mode="after")
    def _check_minutes(self) -> TrainConfig:
        if self.schedule_by == "minutes" and self.max_minutes is None:
            raise ValueError("train.schedule_by: minutes needs train.max_minutes")
        return self


class SearchConfig(_Section):
    """Defaults of the beam search, also used in validation."""

    beam: int = Field(5, ge=1, le=1000)
    length_penalty: float = Field(0.8, ge=0, le=5, description="exponent of the length penalty")
    max_ratio: float = Field(3.0, gt=0, description="maximum output tokens per source token")
    coverage_penalty: float = Field(
        0.0, ge=0, le=5, description="weight of the coverage penalty (Wu et al. 2016); 0: none"
    )
    no_repeat_ngram: int = Field(
        0, ge=0, le=20, description="forbid repeating n-grams of this many pieces; 0: allow"
    )


class Config(_Section):
    """A whole configuration."""

    run: FilePath = Field(description="run directory of the trained model and its journal")
    data: DataConfig
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    train: TrainConfig = Field(default_factory=lambda: TrainConfig())
    search: SearchConfig = Field(default_factory=lambda: SearchConfig())
