"""Draw docs/picture.jpg, the picture of the README, from what ``tomotif demo`` left.

    python tools/draw_picture.py FOLDER

Left: the simulated tomogram with its named particles. Right: the real cell with the patterns that were mined in it.
Both are slices as the report shows them.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import NDArray
from PIL import Image

from tomotif.report.palette import Palette
from tomotif.report.runs import read_runs
from tomotif.report.sections import build_section, class_names, class_titles
from tomotif.report.slices import Slice, SliceView

OUTPUT = Path(__file__).resolve().parents[1] / "docs/picture.jpg"
PANELS = {
    "simulated_classes": "A simulated tomogram: particles found and named",
    "real_mined/embedding": "A real cell: patterns found without labels",
}
"""Run folders of the demo, and what their pictures are called."""


def view_of(folder: Path, stage: str) -> SliceView:
    """The slices that the report shows of a stage."""
    [run] = read_runs([folder / stage])
    names = class_names([run])
    section = build_section(run, Palette.of(names, class_titles(names)), brief=False, projection="t-sne")
    return next(block.data for block in section.blocks if block.kind == "view")


def richest(view: SliceView) -> Slice:
    """The slice with the most in it."""
    return max(view.slices, key=lambda one: len(one.rings) + sum(area.path.count("M") for area in one.areas))


def lines_of(path: str) -> Iterator[NDArray[np.float64]]:
    """Closed lines of the data of an SVG path, each of shape (k, 2)."""
    for line in path.split("Z")[:-1]:
        yield np.array(line.removeprefix("M").split(), np.float64).reshape(-1, 2)


def stroke(dash: str) -> str | tuple[float, list[float]]:
    """Matplotlib's line style for SVG's dashes."""
    return (0.0, [float(length) for length in dash.split()]) if dash else "-"


def draw(axes: Axes, view: SliceView, title: str) -> None:
    """One slice with what is marked in it, a scale bar, and a legend below."""
    shown = richest(view)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.image.partition("base64,")[2] or shown.image))))
    axes.imshow(image, cmap="gray", extent=(0, shown.width, shown.height, 0), interpolation="bilinear")
    for ring in shown.rings:
        if "quiet" not in ring.key:
            look = {"color": ring.colour, "linewidth": 1.3, "linestyle": stroke(ring.dash)}
            axes.add_patch(Circle((ring.x, ring.y), ring.radius, fill=False, **look))
    for area in shown.areas:
        for line in lines_of(area.path) if "quiet" not in area.key else ():
            filled = (area.colour, 0.1 if area.dash else 0.4)
            axes.fill(*line.T, facecolor=filled, edgecolor=area.colour, linewidth=1, linestyle=stroke(area.dash))
    right, low = 0.97 * shown.width, 0.95 * shown.height
    axes.plot([right - shown.bar, right], [low, low], color="white", linewidth=2.5, solid_capstyle="butt")
    axes.text(right - shown.bar / 2, 0.985 * low, shown.bar_label, color="white", ha="center", va="bottom")
    axes.set(xlim=(0, shown.width), ylim=(shown.height, 0), xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    entries = [entry for entry in view.legend if not entry.quiet]
    axes.legend(
        [
            Line2D([], [], color=entry.style.colour, linewidth=3, linestyle=stroke(entry.style.dash))
            for entry in entries
        ],
        [f"{entry.style.label} · {entry.count}" for entry in entries],
        loc="upper left",
        bbox_to_anchor=(0, -0.01),
        ncols=3 if shown.width > shown.height else 2,
        frameon=False,
        fontsize=8,
        borderaxespad=0,
        handlelength=1.5,
    )


def main(folder: Path) -> None:
    """Draw both panels at one height."""
    views = [view_of(folder, stage) for stage in PANELS]
    widths = [richest(view).width / richest(view).height for view in views]
    figure = Figure(figsize=(4.6 * sum(widths) + 0.4, 5.6), layout="constrained")
    for axes, view, title in zip(figure.subplots(1, 2, width_ratios=widths), views, PANELS.values(), strict=True):
        draw(axes, view, title)
    figure.savefig(OUTPUT, dpi=110, pil_kwargs={"quality": 88})
    sys.stdout.write(f"{OUTPUT}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
