"""Bars as SVG, for the card: no drawing library, text of one size, readable on light and dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LABEL, PLOT, VALUE, LINE, GAP = 230, 320, 150, 22, 6
# What fits into a label's width.
LETTERS = 32


@dataclass(frozen=True)
class Bar:
    """One bar: its label on the left, what it says on the right, and where its interval lies, if it has one."""

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None


def bar_chart(title: str, bars: Sequence[Bar], longest: float | None = None) -> str:
    """Horizontal bars from zero.

    Args:
        longest: the value that fills the plot's width; the greatest one unless it is given.
    """
    full = longest or max((bar.value for bar in bars), default=0) or 1.0
    height = LINE * (len(bars) + 1) + GAP
    body = [f'<text x="0" y="14" font-weight="bold">{escape(title)}</text>']
    for place, bar in enumerate(bars, 1):
        top = LINE * place
        body.append(f'<text x="{LABEL - GAP}" y="{top + 15}" text-anchor="end">{escape(_cut(bar.label))}</text>')
        body.append(
            f'<rect x="{LABEL}" y="{top + 3}" width="{_width(bar.value, full)}" height="{LINE - GAP}" fill="#4878a8"/>'
        )
        if bar.interval:
            low, high = (LABEL + _width(end, full) for end in bar.interval)
            middle = top + LINE / 2
            body.append(f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#d08030" stroke-width="3"/>')
        body.append(f'<text x="{LABEL + PLOT + GAP}" y="{top + 15}">{escape(bar.text)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABEL + PLOT + VALUE} {height}" role="img" '
        f'font-family="sans-serif" font-size="13" fill="#808080"><title>{escape(title)}</title>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _width(value: float, full: float) -> float:
    return round(PLOT * min(max(value / full, 0.0), 1.0), 1)


def _cut(label: str) -> str:
    return label if len(label) <= LETTERS else label[: LETTERS - 1] + "…"
