"""Attention as a picture, by matplotlib (the extra ``plots``)."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.io.write import replacing
from nmt.translate.attention_map import AttentionMap

# Families that hold Chinese characters, the usual ones of Linux, macOS and Windows.
_CHINESE = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "AR PL UMing CN",
    "PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti", "Arial Unicode MS",
    "Microsoft YaHei", "SimHei", "SimSun",
)  # fmt: skip
_INCHES = 0.28  # a cell
_MOST_CELLS, _LONGEST = 100_000, 1_300  # of a PNG; a cell is 42 by 42 pixels


def draw(alignments: Sequence[AttentionMap], path: Path, kind: str) -> None:
    """Draw matrices one below the other: characters across, words down, darker is more.

    In an SVG text stays text, and the browser that shows it supplies the fonts. A PNG
    needs a font with Chinese characters here and now.

    Args:
        alignments: one for each sentence, at least one.
        path: where to.
        kind: svg or png.

    Raises:
        NmtError: matplotlib is not installed; no Chinese font for a PNG; nothing to draw;
            the file can't be written.
    """
    if not alignments:
        raise NmtError(f"{path}: nothing to draw: all lines are blank")
    across = max(len(one.characters) for one in alignments)
    down = sum(len(one.words) for one in alignments)
    if kind == "png" and (across * down > _MOST_CELLS or max(across, down) > _LONGEST):
        raise NmtError(
            f"{path}: {across:,} characters by {down:,} words are too many for pixels",
            "--attention-html FILE takes any number",
        )
    try:
        import matplotlib as mpl
        from matplotlib import font_manager
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NmtError(
            f"{path}: drawing needs matplotlib ({error})", 'pip install "nmt-zh-en[plots]"'
        ) from None
    chinese = _installed(font_manager.fontManager)
    if kind == "png" and not chinese:
        # matplotlib knows the fonts of its first run ever, not the one installed just now.
        for font in font_manager.findSystemFonts():
            with contextlib.suppress(Exception):  # of a font that it can't read
                font_manager.fontManager.addfont(font)
        chinese = _installed(font_manager.fontManager)
    if kind == "png" and not chinese:
        raise NmtError(
            f"{path}: no font with Chinese characters is installed, a PNG needs one",
            "install one (Debian: apt install fonts-noto-cjk), or use --attention-svg",
        )
    # The reader of an SVG has fonts of their own.
    families = [*(_CHINESE if kind == "svg" else chinese[:1]), "DejaVu Sans", "sans-serif"]
    style: Any = {
        "font.family": families,
        "svg.fonttype": "none",
        "svg.hashsalt": "nmt",  # the same file each time
    }
    with mpl.rc_context(style):
        figure = _figure(Figure, alignments)
        # SVG asks for the width of text in fonts that only the reader has.
        metadata = {"Date": None} if kind == "svg" else None
        with _quiet_fonts(), replacing(path) as file:
            figure.savefig(file, format=kind, dpi=150, metadata=metadata, bbox_inches="tight")


def _installed(manager: Any) -> list[str]:
    names = {font.name for font in manager.ttflist}
    return [name for name in _CHINESE if name in names]


def _figure(figure_class: Any, alignments: Sequence[AttentionMap]) -> Any:
    heights = [max(1, len(one.words)) for one in alignments]
    width = max(len(one.characters) for one in alignments)
    figure = figure_class(
        figsize=(_INCHES * width + 1.5, _INCHES * sum(heights) + 0.6 * len(heights)),
        layout="constrained",
    )
    panels = figure.subplots(len(alignments), 1, squeeze=False, height_ratios=heights)
    for axes, one in zip(panels[:, 0], alignments, strict=True):
        axes.imshow(
            one.weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal", interpolation="none"
        )
        axes.set_xticks(range(len(one.characters)), [_shown(c) for c in one.characters])
        axes.set_yticks(range(len(one.words)), [_literal(word) for word in one.words])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_linewidth(0.5)
    return figure


def _shown(character: str) -> str:
    return _literal(character) if character.isprintable() else " "


def _literal(text: str) -> str:
    """A dollar would begin a formula."""
    return text.replace("$", r"\$")


@contextlib.contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Without the warnings and log lines about glyphs that are missing here."""
    logger = logging.getLogger("matplotlib.font_manager")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            yield
    finally:
        logger.setLevel(before)
