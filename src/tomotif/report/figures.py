"""Arrays to pictures for a page: grey PNGs and line charts, both as text that goes into the HTML."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's own text colour, so that charts follow the dark mode


def stretch(image: NDArray[np.floating], low: float = 0.5, high: float = 99.5) -> NDArray[np.uint8]:
    """Map two percentiles of an image to black and white.

    Parameters
    ----------
    image
        Any shape; values that are not finite become black.
    low, high
        Percentiles, 0 to 100.

    Returns
    -------
    NDArray[uint8], the same shape

    Examples
    --------
    >>> stretch(np.array([[0.0, 1.0, 2.0]]), 0, 100).tolist()
    [[0, 128, 255]]
    """
    finite = image[np.isfinite(image)]
    black, white = np.percentile(finite, [low, high]) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(image, nan=black) - black) / max(float(white - black), 1e-12)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def png(image: NDArray[np.uint8]) -> str:
    """A grey image, shape (height, width), as a ``data:`` address of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def bin_by_mean(image: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Average blocks of factor × factor pixels; a rest at the far edges is cut off.

    >>> bin_by_mean(np.arange(6.0).reshape(2, 3), 2).tolist()
    [[2.0]]
    """
    height, width = (n // factor for n in image.shape)
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return np.asarray(blocks.mean(axis=(1, 3)))


def central_slices(
    volume: NDArray[np.floating], *, planes: Sequence[str] = ("xy", "xz"), thickness: int = 1
) -> list[NDArray[np.float32]]:
    """Means of the central slices of a volume through voxel n // 2.

    Parameters
    ----------
    volume
        Densities zyx.
    planes
        Which of ``"xy"``, ``"xz"``, ``"yz"``; the first letter runs to the right, the second down.
    thickness
        Number of slices averaged.
    """
    axis_of = {"xy": 0, "xz": 1, "yz": 2}
    images = []
    for plane in planes:
        axis = axis_of[plane]
        start = max(volume.shape[axis] // 2 - thickness // 2, 0)
        slab = np.take(volume, range(start, min(start + thickness, volume.shape[axis])), axis=axis)
        images.append(slab.astype(np.float32).mean(axis=axis))
    return images


def side_by_side(images: Sequence[NDArray[np.uint8]], *, down: bool = False, gap: int = 1) -> NDArray[np.uint8]:
    """Several grey images in one, to the right of or below one another, with a black gap of ``gap`` pixels."""
    axis = 0 if down else 1
    shape = list(images[0].shape)
    shape[axis] = gap
    parts = [images[0]]
    for image in images[1:]:
        parts += [np.zeros(shape, np.uint8), image]
    return np.concatenate(parts, axis=axis)


def smooth(image: NDArray[np.floating], sigma_px: float) -> NDArray[np.float32]:
    """Gaussian low-pass for display, standard deviation in pixels."""
    return np.asarray(gaussian_filter(image.astype(np.float32), sigma_px, mode="nearest"), dtype=np.float32)


def nice_length(longest: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ that is not longer.

    >>> [nice_length(x) for x in (7.3, 38, 1000)]
    [5.0, 20.0, 1000.0]
    """
    power = 10.0 ** np.floor(np.log10(longest))
    return float(power * max(step for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


def heat_colours(values: NDArray[np.floating]) -> list[str]:
    """Colours of values from low to high, 5 % to 95 % of their range: ``viridis`` without its darkest part."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if not len(values):
        return []
    low, high = np.nanpercentile(values, [5, 95])
    part = np.clip((np.nan_to_num(values, nan=low) - low) / max(float(high - low), 1e-12), 0, 1)
    return [to_hex(colour) for colour in colormaps["viridis"](0.3 + 0.7 * part)]


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: str = INK
    dash: bool = False


def line_chart(
    curves: Sequence[Curve],
    *,
    name: str,
    x_label: str,
    y_label: str,
    size: tuple[float, float] = (4.8, 2.5),
    y_range: tuple[float, float] | None = None,
    level: float | None = None,
    x_text: Callable[[float], str] | None = None,
    whole_x: bool = False,
    filled: bool = False,
) -> str:
    """A line chart as SVG that takes the text colour and the font of the page around it.

    Parameters
    ----------
    curves
        The lines; with more than one a legend is drawn.
    name
        What the chart is, for those who hear the page; also keeps its identifiers apart from other charts'.
    x_label, y_label
        Axis labels with units.
    size
        Width and height in inches of 72 px.
    y_range
        Limits of the vertical axis.
    level
        Height of a dashed line to compare with.
    x_text
        Text of a tick, when it is not its value.
    whole_x
        Ticks at whole numbers only.
    filled
        Fill the area under the curves.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for curve in curves:
            x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
            dashes = (0, (4, 2.5)) if curve.dash else "-"
            alone = np.isfinite(y).sum() == 1
            axes.plot(
                x,
                y,
                color=curve.colour,
                linestyle=dashes,
                linewidth=1.8,
                label=curve.label,
                marker="o" if alone else "",
            )
            if filled:
                axes.fill_between(x, y, color=curve.colour, alpha=0.18, linewidth=0)
        if level is not None:
            axes.axhline(level, color=INK, linewidth=1, linestyle=(0, (2, 2)), alpha=0.55)
        if y_range is not None:
            axes.set_ylim(*y_range)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole_x))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if x_text is not None:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: x_text(value)))
        quiet_axes(axes, x_label, y_label)
        if len(curves) > 1:
            axes.legend(frameon=False, labelcolor=INK, handlelength=1.6)

    return drawn(draw, name=name, size=size)


def drawn(draw: Callable[[Figure], None], *, name: str, size: tuple[float, float]) -> str:
    """What is drawn on a figure, as SVG that takes the text colour and the font of the page around it.

    Parameters
    ----------
    draw
        Draws on the figure.
    name
        What the chart is, as of :func:`line_chart`.
    size
        Width and height in inches of 72 px.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9.0,
        "font.sans-serif": ["DejaVu Sans"],
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return inline_svg(buffer.getvalue(), name)


def quiet_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels in the page's colour, a faint grid, and a line at the bottom only."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    axes.tick_params(colors=INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)


def inline_svg(document: str, name: str) -> str:
    """An SVG document as an element of an HTML page: no prologue, no identifiers that nobody refers to."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href", "href")
    body = re.sub(r'\sid="(?![mp][0-9a-f]{10})[^"]*"', "", body)
    body = body.replace(INK, "currentColor")
    body = re.sub(r'\s(width|height)="[^"]*pt"', "", body, count=2)
    return body.replace("<svg", f'<svg class="chart" role="img" aria-label="{html.escape(name)}"', 1)
