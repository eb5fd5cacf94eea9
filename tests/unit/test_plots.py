"""Charts: nothing is clipped, text stays text, and colours follow the reader's theme."""

from __future__ import annotations

import pytest

from nmt.viz import plots

pytest.importorskip("matplotlib")

JOURNAL = [
    {"kind": "log", "update": 1, "loss": 5.0, "learning_rate": 1e-3, "tokens_per_second": 900},
    {"kind": "validation", "update": 1, "dev_bleu": 24.9},
    {"kind": "log", "update": 2, "loss": 4.0, "learning_rate": 2e-3, "tokens_per_second": 950},
    {"kind": "validation", "update": 2, "dev_bleu": 25.0},
]


@pytest.mark.parametrize("values", [[25.0], [24.9, 25.0], [0.0]])
def test_axis_ends_above_the_best_dev_bleu(values: list[float]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    records = [
        {"kind": "validation", "update": n, "dev_bleu": value} for n, value in enumerate(values)
    ]
    plots._plot_panel(axes, records, "validation", "dev_bleu", "o-")
    bottom, top = axes.get_ylim()
    assert bottom == 0
    assert top > 1.05 * max(values)


def test_svg_follows_the_theme_and_is_reproducible() -> None:
    svg = plots.training_curves(JOURNAL)
    assert svg is not None
    assert svg == plots.training_curves(JOURNAL)
    text = svg.decode()
    assert '<svg class="plot"' in text
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#ffffff" not in text
    assert "dev BLEU" in text


def test_panels_are_drawn_one_by_one_for_narrow_pages() -> None:
    titles = [title for title, _ in plots.training_panels(JOURNAL)]
    assert titles[1] == "dev BLEU"
    assert len(titles) == 4
    assert plots.training_panels([]) == []
    assert plots.training_curves([]) is None
