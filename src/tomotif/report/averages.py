"""The section of class averages: central slices, Fourier shell correlation, resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.io.files import read_json
from tomotif.io.mrc import open_volume
from tomotif.report.blocks import Section, as_list, as_number, counted
from tomotif.report.figures import Curve, central_slices, line_chart, png, side_by_side, stretch
from tomotif.report.palette import Palette, Style
from tomotif.report.runs import Run, mapping


@dataclass(frozen=True)
class Average:
    """A class average as shown; the chart is SVG or empty, ``limited`` when its FSC stays above 0.143 to the end.

    One with warnings, such as that it is noise aligned to itself, is shown with them and is never the finest.
    """

    style: Style
    image: str
    alt: str
    particles: int | None
    resolution: float | None
    limited: bool
    poses: str
    chart: str
    warnings: tuple[str, ...]


def class_average(run: Run, entry: dict[str, Any], classes: Palette) -> Average:
    """Pictures and numbers of one entry of ``averages.json``.

    Raises
    ------
    InputError
        When the map is missing or damaged.
    """
    name = str(entry.get("class", ""))
    volume = open_volume(run / str(entry.get("file") or f"{name}.mrc"))
    images = central_slices(np.asarray(volume.data, np.float32), planes=("xy", "xz", "yz"))
    edge = max(max(image.shape) for image in images)
    grey = stretch(np.stack([pad_to(image, edge) for image in images]), 1, 99.8)
    particles = as_number(entry.get("particles"))
    return Average(
        style=classes[name],
        image=png(side_by_side(list(grey))),
        alt=f"central xy, xz and yz slices of the average of {classes[name].label}",
        particles=None if particles is None else int(particles),
        resolution=as_number(entry.get("resolution_A")),
        limited=stays_above(mapping(entry.get("fsc"))),
        poses=str(entry.get("poses") or ""),
        chart=fsc_chart(mapping(entry.get("fsc")), f"Fourier shell correlation of {classes[name].label}, {run.name}"),
        warnings=tuple(map(str, as_list(entry.get("warnings")))),
    )


def stays_above(curve: dict[str, Any], threshold: float = 0.143) -> bool:
    """Whether a Fourier shell correlation never falls below the threshold, so that the voxel limits the resolution."""
    values = [as_number(value) for value in as_list(curve.get("fsc"))]
    return bool(values) and all(value is not None and value >= threshold for value in values)


def fsc_chart(curve: dict[str, Any], name: str) -> str:
    """Chart of a Fourier shell correlation, empty when there is no curve."""
    frequency = [as_number(value) or 0.0 for value in as_list(curve.get("frequency"))]
    fsc = [np.nan if as_number(value) is None else float(value) for value in as_list(curve.get("fsc"))]
    if len(frequency) < 2 or len(frequency) != len(fsc) or not np.isfinite(fsc).any():
        return ""
    return line_chart(
        [Curve("FSC", frequency, fsc, "#0E8A8A")],
        name=name,
        x_label="resolution (Å)",
        y_label="FSC",
        size=(3.9, 1.8),
        y_range=(min(-0.1, float(np.nanmin(fsc))), 1.05),
        level=0.143,
        x_text=lambda value: f"{1 / value:.0f}" if value > 1e-9 else "",
    )


def pad_to(image: NDArray[np.floating], edge: int) -> NDArray[np.floating]:
    """Surround an image with its smallest value until it is edge × edge."""
    before = [(edge - n) // 2 for n in image.shape]
    widths = [(b, edge - n - b) for b, n in zip(before, image.shape, strict=True)]
    return np.pad(image, widths, constant_values=image.min())


def average_section(section: Section, classes: Palette, brief: bool) -> None:
    """Class averages with their resolution; only how fine they are, when a discovery on the page shows them."""
    section.title = "Class averages"
    entries = [mapping(entry) for entry in as_list(section.attempt(read_json, section.run / "averages.json"))]
    shown = [section.attempt(class_average, section.run, entry, classes) for entry in entries]
    averages = sorted((a for a in shown if a is not None), key=lambda a: -(a.particles or 0))
    if not averages:
        return
    poses = sorted({average.poses for average in averages if average.poses})
    section.lead = f"{counted(len(averages), 'class average')}, weighted by what each particle's tilt range measured."
    section.lead += f" Poses: {'; '.join(poses)}." if poses else ""
    describe_averages(section, averages, f" (poses {'; '.join(poses)})" if poses else "")
    if brief:
        section.lead += " They are shown on the cards of the clusters."
        return
    section.add(
        "averages",
        "Averages and their resolution",
        averages,
        "Central xy, xz and yz slices; dense matter is bright. Curves: Fourier shell correlation of the averages of "
        "two halves of the particles over the resolution; the dashed line is 0.143, where the resolution is read.",
    )


def describe_averages(section: Section, averages: list[Average], poses: str) -> None:
    """Say how fine the averages are."""
    resolved = [average for average in averages if average.resolution is not None and not average.warnings]
    if not resolved:
        if warned := sum(bool(average.warnings) for average in averages):
            section.finding = f"No class average can be trusted: {warned} of {len(averages)} came with a warning."
        return
    best = min(resolved, key=lambda average: average.resolution or 0.0)
    section.tiles.append(("Best average", f"{best.resolution:.0f} Å"))
    limited = sum(average.limited for average in resolved)
    if limited:
        which = f"{limited} of" if limited < len(averages) else "All" if limited > 1 else "The"
        reach = f"{which} {counted(len(averages), 'class average')} reach{'es' if limited == 1 else ''}"
        section.finding = f"{reach} {best.resolution:.0f} Å, all that the voxels allow{poses}."
    else:
        section.finding = f"The finest class average is that of {best.style.word}, at {best.resolution:.0f} Å{poses}."
