"""Configuration of the sources of training text."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _to_path(value: object) -> object:
    """Accept dates and numbers, which YAML makes of some names; expand ``~``."""
    if isinstance(value, (date, int, float)) and not isinstance(value, bool):
        value = str(value)
    return Path(value).expanduser() if isinstance(value, (str, Path)) else value


FilePath = Annotated[Path, BeforeValidator(_to_path)]

_ENCODINGS = {
    "gbk": "gb18030", "gb2312": "gb18030", "cp936": "gb18030", "utf-8-sig": "utf-8",
    "utf8": "utf-8", "utf16": "utf-16", "utf-16-le": "utf-16", "utf-16-be": "utf-16",
    "utf-16le": "utf-16", "utf-16be": "utf-16",
}  # fmt: skip


def _to_encoding(value: object) -> object:
    """Replace other names of an encoding, and subsets of GB18030."""
    name = value.lower().replace("_", "-") if isinstance(value, str) else value
    return _ENCODINGS.get(name, name) if isinstance(name, str) else name


Encoding = Annotated[Literal["utf-8", "gb18030", "big5", "utf-16"], BeforeValidator(_to_encoding)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Source(_Section):
    """Keys of every source."""

    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="how often each training pair is used: 2 twice, 0.5 a random half",
    )
    cap: int | None = Field(
        None,
        ge=1,
        description="maximum pairs, a random sample after cleaning; of hsk, sentences and "
        "glosses each",
    )
    licence: str | None = Field(None, description="of the text, for the card of nmt package")


class _FileSource(_Source):
    path: FilePath = Field(description="file; .gz .bz2 .xz .zst are decompressed, - is stdin")


class _TextSource(_FileSource):
    encoding: Encoding = Field("utf-8", description="also gbk, gb2312, cp936, utf-8-sig")


class HskSource(_Source):
    """The built-in sample: 4,354 graded sentences of the package ``hsk-sentences-audio``."""

    source: Literal["hsk"]
    glosses: bool = Field(True, description="also train on its word glosses (never in dev or test)")


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
    """A CSV file with column names in the first line."""

    source: Literal["csv"]
    src: str = Field("zh", description="name of the Chinese column")
    trg: str = Field("en", description="name of the English column")
    delimiter: str = Field(",", min_length=1, max_length=1)


class JsonlSource(_TextSource):
    """One JSON object a line."""

    source: Literal["jsonl"]
    src: str = Field("zh", description="key of the Chinese text; a.b is key b of object a")
    trg: str = Field("en", description="key of the English text")


class _TwoFileSource(_Source):
    src: FilePath = Field(description="Chinese, one sentence a line")
    trg: FilePath = Field(description="English, the same number of lines")
    encoding: Encoding = Field("utf-8", description="also gbk, gb2312, cp936, utf-8-sig")


class ParallelSource(_TwoFileSource):
    """Two files whose lines correspond."""

    source: Literal["parallel"]


class SgmSource(_TwoFileSource):
    """WMT ``.sgm`` or ``.xml``, IWSLT ``.xml`` or ``train.tags``, whose segments correspond."""

    source: Literal["sgm"]
    src: FilePath = Field(description="file with the Chinese segments")
    trg: FilePath = Field(
        description="file with the English segments; of several references the first is read"
    )


class TmxSource(_FileSource):
    """A TMX translation memory with any zh… and en… languages."""

    source: Literal["tmx"]


class PoSource(_FileSource):
    """A gettext catalogue English → Chinese; fuzzy entries count as untranslated."""

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
    | SgmSource
    | TmxSource
    | PoSource
    | XliffSource,
    Field(discriminator="source"),
]
_SOURCES: dict[str, type[BaseModel]] = {
    "hsk": HskSource, "tsv": TsvSource, "csv": CsvSource, "jsonl": JsonlSource,
    "parallel": ParallelSource, "sgm": SgmSource, "tmx": TmxSource, "po": PoSource,
    "xliff": XliffSource,
}  # fmt: skip
