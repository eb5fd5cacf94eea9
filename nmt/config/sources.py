"""Configuration of the sources of training text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


Source = Annotated[
    HskSource
    | TsvSource
    | CsvSource
    | JsonlSource
    | ParallelSource
    | TmxSource
    | PoSource
    | XliffSource,
    Field(discriminator="source"),
]
_SOURCES: dict[str, type[BaseModel]] = {
    "hsk": HskSource, "tsv": TsvSource, "csv": CsvSource, "jsonl": JsonlSource,
    "parallel": ParallelSource, "tmx": TmxSource, "po": PoSource, "xliff": XliffSource,
}  # fmt: skip
