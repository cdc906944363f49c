"""One section a run, decided by the command that made it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import InputError
from tomotif.io.files import read_json
from tomotif.io.stack import STACK_NAME, open_stack
from tomotif.report.averages import average_section
from tomotif.report.blocks import (
    Projection,
    Section,
    as_list,
    as_number,
    count_bars,
    counted,
    first_column,
    listed,
    numbers,
    texts,
)
from tomotif.report.calibration import add_answers, add_held_out
from tomotif.report.discoveries import discover_section, features_section
from tomotif.report.embedding import embed_section
from tomotif.report.figures import Curve, line_chart
from tomotif.report.gallery import SHORT
from tomotif.report.palette import BACKGROUND_NAMES, Palette, natural
from tomotif.report.parts import add_slices, by_size, galleries, gallery_caption, has_column
from tomotif.report.patterns import PICTURES, pattern_names, patterns_section
from tomotif.report.runs import PARTICLES, Run, mapping
from tomotif.report.scores import score_class_names, score_section
from tomotif.report.slices import Colouring
from tomotif.report.truth import true_classes

TRAINING, VALIDATION = "#0E8A8A", "#D55E00"
AUTOENCODER = (
    "Live numbers differ between boxes; the others say nothing. The error is that of boxes that were not learned from: "
    "lower is better, and what is left is mostly noise. Variation: variance between the drawings as a share of that "
    "between the boxes; near 0 all drawings would be the same."
)
BY_SHAPE = "proposed by its shape alone: no template and no label decided it, and nobody has confirmed it"


def build_section(run: Run, classes: Palette, *, brief: bool, projection: Projection) -> Section:
    """The section of a run.

    Parameters
    ----------
    run
        The run.
    classes
        Styles of every class on the page.
    brief
        Whether a later run on the page shows the same particles with more known of them.
    projection
        How maps of features are drawn.
    """
    section = Section(run, title=str(run.record.get("command") or "Run").capitalize(), projection=projection)
    if not run.finished:
        section.notes.append("This run has not ended: what is shown may be incomplete.")
    builder = patterns_section if (run / PICTURES).is_file() else BUILDERS.get(run.command)
    if builder is not None:
        section.attempt(builder, section, classes, brief)
    return section


def class_names(runs: Sequence[Run]) -> list[str]:
    """Every name of a class or group that the runs' files mention; damaged files are passed over."""
    names: set[str] = set()
    for run in runs:
        for found in (names_in, true_names_in, pattern_names):
            names |= Section(run).attempt(found, run) or set()
    return sorted(names, key=natural)


def model_card(run: Run) -> Any:
    """What a training run says of its network, None when it is no training run."""
    return read_json(run / "model" / "model.json") if (run / "model" / "model.json").is_file() else None


def class_titles(names: Sequence[str]) -> dict[str, str]:
    """What those names stand for that are complexes of the packaged library."""
    from tomotif.io.structure import structure_table

    table = structure_table() if names else None
    return {} if table is None else {n: t for n, t in zip(table["name"], table["title"], strict=True) if n in names}


def names_in(run: Run) -> set[str]:
    """Names of classes and groups that one run mentions."""
    names = {str(name) for name in as_list(mapping(model_card(run)).get("classes"))}
    if (run / "averages.json").is_file():
        names |= {str(mapping(entry).get("class", "")) for entry in as_list(read_json(run / "averages.json"))}
    if (run / "score.json").is_file():
        names |= set(score_class_names(mapping(read_json(run / "score.json"))))
    if (run / PARTICLES).is_file():
        names |= {
            name for column in ("class", "group") if column in run.particles for name in texts(run.particles, column)
        }
    return names


def true_names_in(run: Run) -> set[str]:
    """Classes that a run's particles really have."""
    found = true_classes(run) if run.command in ("classify", "features", "discover") else None
    return set() if found is None else set(found.names)


# ---- one function a command -----------------------------------------------------------------------------------------


def histogram(values: NDArray[np.floating], name: str, label: str) -> str:
    """Chart of how often values come."""
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, bins=min(40, max(5, len(finite) // 8)))
    outline = Curve(label, np.repeat(edges, 2), np.concatenate([[0], np.repeat(counts, 2), [0]]), TRAINING)
    limits = (0, 1.08 * max(counts.max(), 1))
    return line_chart(
        [outline], name=name, x_label=label, y_label="particles", size=(7.2, 1.8), y_range=limits, filled=True
    )


def simulate_section(section: Section, classes: Palette, brief: bool) -> None:
    """Truth over the slices, and how many of each."""
    section.title = "Simulated particles"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None:
        return
    names = texts(particles, "class") if "class" in particles else np.full(len(particles), "", dtype=object)
    palette = classes if "class" in particles else Palette.of([""])
    if (section.run / STACK_NAME).is_file():
        section.lead = f"{counted(len(particles), 'simulated subtomogram')} of known class and pose, to train on."
        shown = section.attempt(galleries, section.run, names, by_size(names, palette), None, SHORT)
        section.add("short_gallery", "Simulated subtomograms", shown, gallery_caption(None, SHORT))
    else:
        section.title = "Simulated tomograms"
        tomograms = counted(len(set(particles.tomogram)), "simulated tomogram")
        section.lead = f"{counted(len(particles), 'particle')} of known class and pose placed in {tomograms}."
        add_slices(section, Colouring(names, palette), 2 if brief else 4, "The truth", "Rings mark the true positions.")
    section.add("bars", "True particles per class", count_bars(names, palette))


def pick_section(section: Section, classes: Palette, brief: bool) -> None:
    """Picks over the slices coloured by score, and the scores' histogram."""
    section.title = "Picked particles"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None:
        return
    score = numbers(particles, "score")
    colouring = Colouring(None, classes, score, "score")
    if score is None:
        colouring = Colouring(np.full(len(particles), "pick", dtype=object), Palette.of(["pick"]))
    where = add_slices(section, colouring, 2 if brief else 4, "Picks")
    section.lead = f"{counted(len(particles), 'candidate')} found in {where} by density alone, without a template."
    section.finding = f"In {where}, {counted(len(particles), 'candidate particle')} were picked without a template."
    section.tiles.append(("Picked", f"{len(particles):,}"))
    if score is not None and len(score) > 1:
        name = f"Histogram of pick scores, {section.run.name}"
        section.add("charts", "Scores of the picks", [histogram(score, name, "score")])


def extract_section(section: Section, classes: Palette, brief: bool) -> None:
    """What was cut, and the best-scored boxes when no later section shows them."""
    section.title = "Extracted subtomograms"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None:
        return
    section.lead = f"{counted(len(particles), 'box', 'boxes')} cut around the picks and normalised one by one."
    padded = numbers(particles, "padded_fraction")
    over = 0 if padded is None else int((padded > 0).sum())
    if over:
        section.lead += f" {counted(over, 'reaches', 'reach')} over the border, padded there."
    section.add("facts", "The stack", section.attempt(stack_facts, section.run))
    if not brief and len(particles):
        name, order = "all boxes", first_column(particles, "score")
        everything = np.full(len(particles), name, dtype=object)
        shown = section.attempt(galleries, section.run, everything, Palette.of([name]), order)
        section.add("gallery", "Boxes", shown, gallery_caption(order))


def stack_facts(run: Run) -> dict[str, str]:
    """What the header of a stack of boxes says."""
    stack, voxel_size = open_stack(run / STACK_NAME)
    edge = stack.shape[1]
    return {
        "boxes": f"{len(stack):,}",
        "box": f"{edge}³ voxels, {edge * voxel_size / 10:.3g} nm wide",
        "voxel": f"{voxel_size:g} Å",
        "values": f"{stack.dtype}, {stack.nbytes / 1e6:,.1f} MB",
    }


def train_section(section: Section, classes: Palette, brief: bool) -> None:
    """Learning curves, the network's card, and what it says of the particles that it did not learn from."""
    section.title = "Training"
    card = mapping(section.attempt(read_json, section.run / "model" / "model.json"))
    if card:
        names = [classes[str(name)].word for name in as_list(card.get("classes"))]
        learned = counted(len(names), "class", "classes")
        section.lead = f"The network {card.get('architecture', '')} learned {learned}: {listed(names)}."
        training = mapping(card.get("training"))
        facts = {
            "architecture": card.get("architecture"),
            "box": f"{card.get('box_px')}³ voxels of {value_text(card.get('voxel_size'))} Å",
            "particles trained on": training.get("particles"),
            "validated on": training.get("validation_particles"),
            "epochs": training.get("epochs_run"),
            "validation accuracy": card.get("validation_accuracy"),
        }
        section.add(
            "facts", "The network", {key: value_text(value) for key, value in facts.items() if value is not None}
        )
    history = section.attempt(read_history, section.run / "history.csv")
    section.add("charts", "Learning curves", history_charts(history, section.run.name) if history else [])
    if card:
        add_held_out(section, classes)


def normalise_section(section: Section, classes: Palette, brief: bool) -> None:
    """How many candidates were turned."""
    section.title = "Boxes in their normal pose"
    boxes, dropped = (as_number(section.run.results.get(key)) or 0 for key in ("subtomograms", "dropped"))
    if section.run.finished:
        left = f"; {dropped:,.0f} of the picks were left out" if dropped else ""
        section.lead = f"{counted(int(boxes), 'box', 'boxes')} cut around the picks and turned so that the object in "
        section.lead += f"the middle has its principal axes along z, y and x{left}."


def autoencode_section(section: Section, classes: Palette, brief: bool) -> None:
    """The training curve of an autoencoder, and what its card says."""
    section.title = "Autoencoder"
    card = mapping(section.attempt(read_json, section.run / "model" / "model.json"))
    if card:
        codes, scores, training = card.get("codes"), mapping(card.get("scores")), mapping(card.get("training"))
        section.lead = (
            f"The network {card.get('architecture', '')} learned to write a box down in {value_text(codes)} numbers "
            "and to draw it again from them, without labels."
        )
        names = ("live_codes", "val_error", "picture_variation")
        live, error, variation = (as_number(scores.get(name)) for name in names)
        facts = {
            "live numbers": None if live is None else f"{live:.0f} of {value_text(codes)}",
            "squared error a voxel": None if error is None else f"{error:.3g}",
            "variation of the drawings": None if variation is None else f"{variation:.0%}",
            "box": f"{card.get('box_px')}³ voxels of {value_text(card.get('voxel_size'))} Å",
            "boxes trained on": training.get("particles"),
            "validated on": training.get("validation_particles"),
            "epochs": training.get("epochs_run"),
        }
        shown = {key: value_text(value) for key, value in facts.items() if value is not None}
        section.add("facts", "The network", shown, AUTOENCODER)
    history = section.attempt(read_history, section.run / "history.csv")
    charts = history_charts(history, section.run.name, (7.2, 2.3)) if history else []
    caption = (
        "Loss of boxes that were not learned from (solid) and of those that were (dashed): both should fall and level "
        "out. Where only the dashed line falls, the network learns boxes by heart."
    )
    section.add("charts", "Training curve", charts, caption)


def value_text(value: object) -> str:
    """A setting or result as text: whole numbers with thousands apart, lists joined.

    >>> value_text(12000), value_text([1.0, 2.5]), value_text(None), value_text(True)
    ('12,000', '1, 2.5', '–', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "–"
    return str(value)


def read_history(path: Path) -> dict[str, list[float]]:
    """Columns of a training history; an empty field is not a number.

    Raises
    ------
    InputError
        When the file is missing, or holds something else than numbers.
    """
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent.name}: learning curves are not shown")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return {key: [float(row[key] or "nan") for row in rows] for key in (rows[0] if rows else {}) if key}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected numbers in {path}, got something else ({error}); learning curves are not shown"
        ) from error


def history_charts(history: dict[str, list[float]], name: str, size: tuple[float, float] = (4.8, 2.5)) -> list[str]:
    """Losses in one chart, accuracies (fractions) in another."""
    epoch = history.get("epoch") or list(range(len(next(iter(history.values())))))
    charts = []
    for ending, limits in (("loss", None), ("accuracy", (0.0, 1.03))):
        curves = [history_curve(column, epoch, history[column]) for column in history if column.endswith(ending)]
        if curves:
            label = ending if len(curves) > 1 else curves[0].label
            title = f"{ending} per epoch, {name}"
            chart = line_chart(
                curves, name=title, x_label="epoch", y_label=label, y_range=limits, whole_x=True, size=size
            )
            charts.append(chart)
    return charts


def history_curve(column: str, epoch: list[float], values: list[float]) -> Curve:
    """The line of one column of a history: validation solid, training dashed."""
    first, _, rest = column.partition("_")
    label = f"{ {'val': 'validation', 'train': 'training'}.get(first, first) } {rest}".replace("_", " ").strip()
    return Curve(label, epoch, values, VALIDATION if first == "val" else TRAINING, dash=first != "val")


def classify_section(section: Section, classes: Palette, brief: bool) -> None:
    """Classes over the slices, their sizes and galleries; how right they are, unless a score on the page tells that."""
    section.title = "Classified particles"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None or not has_column(section, particles, "class"):
        return
    names = texts(particles, "class")
    quiet = frozenset(name for name in classes.styles if name.lower() in BACKGROUND_NAMES)
    where = add_slices(section, Colouring(names, classes, quiet=quiet), 4, "Classes in the tomogram")
    section.add("bars", "Particles per class", count_bars(names, classes))
    order = first_column(particles, "probability", "score")
    shown = section.attempt(galleries, section.run, names, by_size(names, classes), order)
    section.add("gallery", "What each class looks like", shown, gallery_caption(order))
    describe_classes(section, names, classes, quiet, where)
    if not brief:
        add_answers(section, classes)


def describe_classes(
    section: Section, names: NDArray[np.object_], styles: Palette, quiet: frozenset[str], where: str
) -> None:
    """Say how many particles bear which class."""
    sizes = Counter(map(str, names))
    aside = sum(sizes.pop(name, 0) for name in quiet)
    classes, left = counted(len(sizes), "class", "classes"), f", {aside:,} set aside as background" if aside else ""
    section.lead = (
        f"{counted(len(names), 'subtomogram')} of {where} sorted into {classes} by the trained network{left}."
    )
    section.tiles.append(("Classes found", str(len(sizes))))
    if sizes:
        often = listed(
            [
                f"{styles[n].word} ({size:,})"
                for n, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:3]
            ]
        )
        named = counted(sizes.total(), "particle")
        section.finding = f"The trained network sorted {named} into {classes}, most often {often}{left}."


def cluster_section(section: Section, classes: Palette, brief: bool) -> None:
    """The proposed group over the slices, its members, and a gallery of every cluster."""
    section.title = "Clusters"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None or not has_column(section, particles, "cluster"):
        return
    clusters = np.array([f"cluster_{name}" for name in texts(particles, "cluster")], dtype=object)
    groups = texts(particles, "group") if "group" in particles else np.full(len(particles), "", dtype=object)
    proposed = {name: int((groups == name).sum()) for name in sorted(set(groups) - {""}, key=natural)}
    every, order = Palette.of(clusters), first_column(particles, "compactness", "probability", "score")
    if proposed:
        where = add_proposed(section, groups, classes, list(proposed), order)
    else:
        where = add_slices(section, Colouring(clusters, every), 4, "Clusters in the tomogram")
    boxes, number = counted(len(particles), "subtomogram"), counted(len(every), "cluster")
    sizes = listed([f"{size:,} are {name}" for name, size in proposed.items()])
    of_these = f", of which {sizes} by shape alone" if proposed else "; no group is proposed"
    section.lead = f"{boxes} of {where} grouped into {number} by features of their shape, without labels{of_these}."
    section.finding = f"Without any labels, {boxes} fell into {number}{of_these}."
    section.tiles += [(f"{name.capitalize()}, by shape", f"{size:,}") for name, size in proposed.items()]
    shown = section.attempt(galleries, section.run, clusters, every, order, SHORT)
    section.add("short_gallery", "Every cluster", shown, gallery_caption(order, SHORT))


def add_proposed(
    section: Section, groups: NDArray[np.object_], palette: Palette, proposed: list[str], order: str | None
) -> str:
    """Slices and gallery of the groups proposed by shape; gives the words for where they lie."""
    caption = f"The group is {BY_SHAPE}."
    colouring = Colouring(groups, palette, quiet=frozenset([""]))
    where = add_slices(section, colouring, 4, f"Proposed: {listed(proposed)}", caption)
    kept = Palette({name: palette[name] for name in proposed})
    shown = section.attempt(galleries, section.run, groups, kept, order)
    section.add("gallery", "Members of the proposed group", shown, f"{caption} {gallery_caption(order)}")
    return where


BUILDERS: dict[str, Callable[[Section, Palette, bool], None]] = {
    "simulate": simulate_section,
    "pick": pick_section,
    "extract": extract_section,
    "train": train_section,
    "classify": classify_section,
    "cluster": cluster_section,
    "features": features_section,
    "discover": discover_section,
    "average": average_section,
    "score": score_section,
    "normalise": normalise_section,
    "autoencode": autoencode_section,
    "patterns": patterns_section,
    "embed": embed_section,
}
