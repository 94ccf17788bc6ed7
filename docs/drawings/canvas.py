"""An SVG drawing of boxes and arrows, in one of two color schemes."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

Point = tuple[float, float]

# For each kind of box: fill and stroke.
COLORS = {
    "light": {
        "text": "#1f2430",
        "line": "#4a5568",
        "conv": ("#dbeafe", "#2563eb"),
        "resize": ("#fef3c7", "#b45309"),
        "join": ("#ede9fe", "#6d28d9"),
        "module": ("#dcfce7", "#15803d"),
        "plain": ("#f1f5f9", "#64748b"),
    },
    "dark": {
        "text": "#e6e9f0",
        "line": "#a9b4c6",
        "conv": ("#1e3a5f", "#60a5fa"),
        "resize": ("#4a3410", "#fbbf24"),
        "join": ("#3b2a63", "#a78bfa"),
        "module": ("#14402a", "#4ade80"),
        "plain": ("#2b3242", "#8a97ad"),
    },
}


class Canvas:
    """Collects shapes; `svg()` gives the document. Coordinates are pixels from the upper left corner."""

    def __init__(self, width: int, height: int, title: str, scheme: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.colors = COLORS[scheme]
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "middle", size: int = 13, bold: bool = False
    ) -> None:
        """One line of text; `y` is its baseline."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"{weight} '
            f'fill="{self.colors["text"]}">{escape(words)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, words: Sequence[str], kind: str = "conv") -> None:
        """A rounded box around the center `(x, y)` with lines of text in it, the first one bold."""
        fill, stroke = self.colors[kind]
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
        )
        for i, line in enumerate(words):
            self.text(x, y + 4.5 + 16 * (i - (len(words) - 1) / 2), line, bold=i == 0 and len(words) > 1)

    def sign(self, x: float, y: float, sign: str) -> None:
        """A small circle with an operator in it."""
        fill, stroke = self.colors["join"]
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="12" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>')
        self.text(x, y + 5.5, sign, size=17)

    def arrow(self, *points: Point, head: bool = True) -> None:
        """A line through points, with a head at its end."""
        path = " ".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(points))
        marker = ' marker-end="url(#head)"' if head else ""
        line = self.colors["line"]
        self.parts.append(f'<path d="{path}" fill="none" stroke="{line}" stroke-width="1.5"{marker}/>')

    def svg(self) -> str:
        """The document."""
        line = self.colors["line"]
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img" '
                'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">',
                f"<title>{escape(self.title)}</title>",
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{line}"/></marker></defs>',
                *self.parts,
                "</svg>\n",
            ]
        )
