"""Charts by matplotlib, the extra ``plots``. No other module imports matplotlib.

An SVG keeps its text as text, has a transparent background, and takes its foreground colour
from the reader's light or dark theme. The same data gives the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.viz.protocols import AttentionMap, Score

INSTALL = "pip install 'nmt-zh-en[plots]'"
KINDS = ("svg", "png")
_MAX_LABEL = 48  # characters of a system's name in a legend
# Foreground of a figure, replaced by `currentColor` in an SVG.
_FOREGROUND = "#010203"
_THEME = """<style>
svg.plot { color: #1c2330; }
@media (prefers-color-scheme: dark) { svg.plot { color: #e6eaf1; } }
</style>
"""
# Contrast of at least 3:1 on white and on a dark page. Markers differ too.
_COLOURS = ["#1f83c8", "#d55e00", "#009673", "#b8609a", "#a8810a", "#7a6ff0"]
_MARKERS = "os^Dv*"
# Panels of the training curves: title, kind of record, field, style.
_PANELS = (
    ("training loss (nats per token)", "log", "loss", "-"),
    ("dev BLEU", "validation", "dev_bleu", "o-"),
    ("learning rate", "log", "learning_rate", "-"),
    ("speed (target tokens per second)", "log", "tokens_per_second", "-"),
)
_PANEL_INCHES = (4.8, 2.7)  # 346 CSS pixels: drawn 1:1 on a phone
# Fonts with Chinese characters on Linux, macOS and Windows, for the reader of an SVG.
_CHINESE = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "AR PL UMing CN",
    "PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti", "Arial Unicode MS",
    "Microsoft YaHei", "SimHei", "SimSun",
)  # fmt: skip
_CELL_INCHES = 0.28


def is_installed() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        return False
    return True


def check_installed(option: str = "charts") -> None:
    """Fail if matplotlib is missing, before the work that a chart would show.

    Raises:
        NmtError: matplotlib is missing.
    """
    if not is_installed():
        raise NmtError(f"{option}: matplotlib is not installed", INSTALL)


def check_chart_name(path: Path) -> str:
    """Return the format that the suffix of `path` names.

    Raises:
        NmtError: the suffix is neither .svg nor .png, or matplotlib is missing.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise NmtError(
            f"{path}: unknown chart format {path.suffix or '(no suffix)'}",
            "name a file that ends in .svg or .png",
        )
    check_installed(str(path))
    return kind


def length_chart(
    labels: Sequence[str], scores: Mapping[str, Sequence[Score]], kind: str = "svg"
) -> bytes:
    """Plot scores against source length, one line per system, with 95 % intervals.

    Args:
        labels: of the buckets, left to right.
        scores: by system, one score per bucket.
        kind: ``svg`` or ``png``.
    """
    with _figure((4.8, 3.4), kind) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for system, (name, row) in enumerate(scores.items()):
            shift = (system - (len(scores) - 1) / 2) * 0.06  # keeps intervals apart
            axes.errorbar(
                [x + shift for x in range(len(labels))],
                [score.value for score in row],
                yerr=_interval_lengths(row),
                label=_short(name),
                color=_COLOURS[system % len(_COLOURS)],
                marker=_MARKERS[system % len(_MARKERS)],
                capsize=3,
                linewidth=1.8,
            )
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel("source length in characters (segments)")
        metric = next(iter(scores.values()))[0].name if scores else ""
        axes.set_ylabel(f"{metric}, 95 % interval")
        _start_at_zero(axes)
        _style(axes)
        if len(scores) > 1:
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25))
        return _save(figure, kind)


def _short(name: str) -> str:
    """Return the end of a long name: a legend wider than the figure leaves no room for axes."""
    return name if len(name) <= _MAX_LABEL else "…" + name[1 - _MAX_LABEL :]


def training_curves(records: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Plot a training from its journal over updates, four panels in one SVG.

    Returns:
        None if the journal has no values to plot.
    """
    if not any(_points(records, kind, field) for _, kind, field, _ in _PANELS):
        return None
    with _figure((10, 6), "svg") as figure:  # fixed margins: a computed layout doubles the time
        figure.subplots_adjust(0.07, 0.08, 0.98, 0.94, wspace=0.18, hspace=0.35)
        for axes, panel in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            axes.set_title(panel[0], loc="left", fontsize=10)
            _plot_panel(axes, records, *panel[1:])
        return _save(figure, "svg")


def training_panels(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, bytes]]:
    """Plot the same panels as one SVG each, for narrow pages; panels without values are left out.

    Returns:
        Title and SVG of each panel.
    """
    panels = []
    for title, kind, field, style in _PANELS:
        if _points(records, kind, field):
            with _figure(_PANEL_INCHES, "svg") as figure:
                figure.subplots_adjust(0.13, 0.19, 0.96, 0.95)
                _plot_panel(figure.subplots(), records, kind, field, style)
                panels.append((title, _save(figure, "svg")))
    return panels


def attention_chart(maps: Sequence[AttentionMap]) -> bytes:
    """Draw attention matrices one below the other as SVG: characters across, words down.

    The reader's browser supplies fonts for the Chinese text.

    Raises:
        NmtError: matplotlib is missing, or there is no matrix.
    """
    if not maps:
        raise NmtError("no attention to draw: all lines are blank")
    heights = [max(1, len(matrix.words)) for matrix in maps]
    width = max(len(matrix.characters) for matrix in maps)
    inches = (_CELL_INCHES * width + 1.5, _CELL_INCHES * sum(heights) + 0.6 * len(maps))
    families = [*_CHINESE, "DejaVu Sans", "sans-serif"]
    with _quiet_fonts(), _figure(inches, "svg", {"font.family": families}) as figure:
        figure.set_layout_engine("constrained")
        panels = figure.subplots(len(maps), 1, squeeze=False, height_ratios=heights)
        for axes, matrix in zip(panels[:, 0], maps, strict=True):
            weights = _shades(matrix.weights)
            axes.imshow(weights, aspect="equal", interpolation="none")
            axes.set_xticks(range(len(matrix.characters)), map(_label, matrix.characters))
            axes.set_yticks(range(len(matrix.words)), map(_label, matrix.words))
            axes.xaxis.tick_top()
            axes.tick_params(length=0)
            axes.spines[:].set_linewidth(0.5)
        return _save(figure, "svg", bbox_inches="tight")


def _shades(weights: Any) -> Any:
    """Return RGBA `[words, characters, 4]`: one colour, opacity a_ij, fit for any background."""
    import numpy as np

    shades = np.empty((*weights.shape, 4))
    shades[..., :3] = (0.16, 0.42, 0.86)
    shades[..., 3] = weights
    return shades


def _label(text: str) -> str:
    """Return a tick label; an unescaped dollar sign would start a formula."""
    return text.replace("$", r"\$") if text.isprintable() else " "


def _plot_panel(
    axes: Any, records: Sequence[Mapping[str, Any]], kind: str, field: str, style: str
) -> None:
    points = _points(records, kind, field)
    if points:
        axes.plot(*zip(*points, strict=True), style, color=_COLOURS[0], markersize=3)
    further = _further_points(records) if field == "dev_bleu" else {}
    for number, (name, more) in enumerate(further.items(), start=1):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(*zip(*more, strict=True), style, color=colour, markersize=3, label=name)
    if further:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("update")
    axes.margins(x=0.02)
    if field not in ("learning_rate", "loss"):
        _start_at_zero(axes)
    _style(axes)


def _points(records: Sequence[Mapping[str, Any]], kind: str, field: str) -> list[tuple[Any, Any]]:
    return [
        (record["update"], record[field])
        for record in records
        if record.get("kind") == kind and isinstance(record.get(field), (int, float))
    ]


def _further_points(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[Any, Any]]]:
    """Return update and BLEU of each set of ``train.also_validate``."""
    points: dict[str, list[tuple[Any, Any]]] = {}
    for record in records:
        for name, scores in record.get("also", {}).items():
            points.setdefault(name, []).append((record["update"], scores["bleu"]))
    return points


def _start_at_zero(axes: Any) -> None:
    """Start the y axis at 0 and leave 8 % above the largest value, so that it is not clipped."""
    top = axes.dataLim.y1
    axes.set_ylim(0, 1.08 * top if top > 0 else 1)


def _style(axes: Any) -> None:
    axes.grid(axis="y", alpha=0.2, color=_FOREGROUND)
    axes.spines[["top", "right"]].set_visible(False)


def _interval_lengths(row: Sequence[Score]) -> list[list[float]]:
    """Return distances from each value to the lower and upper end of its interval, at least 0."""
    ends = [score.interval or (score.value, score.value) for score in row]
    return [
        [max(0.0, score.value - low) for score, (low, _) in zip(row, ends, strict=True)],
        [max(0.0, high - score.value) for score, (_, high) in zip(row, ends, strict=True)],
    ]


@contextlib.contextmanager
def _figure(
    inches: tuple[float, float], kind: str, settings: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """Context manager: an empty figure."""
    check_installed()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours: dict[str, Any] = {}
    if kind == "svg":
        keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        colours = dict.fromkeys(keys, _FOREGROUND)
        colours |= {"figure.facecolor": "none", "axes.facecolor": "none"}
    fixed = {"svg.fonttype": "none", "svg.hashsalt": "nmt"}
    with mpl.rc_context({**fixed, **colours, **(settings or {})}):
        yield Figure(figsize=inches)


def _save(figure: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(out, format=kind, dpi=150, metadata=metadata, **options)
    if kind != "svg":
        return out.getvalue()
    text = out.getvalue().decode().replace(_FOREGROUND, "currentColor")
    start = text.index("<svg")
    end = text.index(">", start) + 1
    opening = text[start:end].replace("<svg", '<svg class="plot"')
    return (text[:start] + opening + "\n" + _THEME + text[end:]).encode()


@contextlib.contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Context manager: silence messages about fonts that only the reader of the SVG needs."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            yield
    finally:
        logger.setLevel(level)
