"""The sections of features and of discovery: a map of the particles, and a card for every cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import InputError
from tomotif.io.files import read_json
from tomotif.report.averages import Average, class_average
from tomotif.report.blocks import Projection, Section, as_list, as_number, counted, listed, numbers, texts
from tomotif.report.maps import SEED, FeatureMap, feature_map, some_rows, whitened
from tomotif.report.palette import Palette, Style
from tomotif.report.parts import add_slices, boxes_of, has_column
from tomotif.report.runs import RECORD, Run, mapping, read_run
from tomotif.report.slices import Colouring
from tomotif.report.truth import Truth, true_classes

VERDICTS, AVERAGES = "verdicts.json", "averages"  # beside the folder of the clusters
KINDS = {"known class": "known", "new structure": "new", "junk": "junk", "mixed": "mixed"}  # to the page's styles
MANY = {"known class": "known classes", "new structure": "new structures"}
PROJECTIONS: dict[Projection, str] = {
    "t-sne": "t-SNE (van der Maaten and Hinton 2008, J Mach Learn Res 9:2579)",
    "umap": "UMAP (McInnes et al. 2018, arXiv:1802.03426)",
}
MAP = (
    "{projection} of the features{space}: neighbours are alike; "
    "distances between groups, and their sizes, mean nothing. Point at a particle, or walk with the arrow keys, to see "
    "the central xy slice of its box (above) and the central xz slice (below), three slices averaged and low-passed by "
    "one voxel; dense matter is bright."
)


# ---- the map --------------------------------------------------------------------------------------------------------


def add_map(section: Section, names: NDArray[np.object_], palette: Palette, coloured: str) -> None:
    """The map of a run's features, or a note that says why there is none."""
    rows = some_rows(len(names))
    made = section.attempt(map_of, section.run, rows, names, palette, section.projection)
    if made is None:
        return
    drawing, changed = made
    count = f"{len(rows):,} of {len(names):,} particles, drawn at random (seed {SEED})"
    shown = count if len(rows) < len(names) else counted(len(names), "particle")
    space = ", taken to the space where the spread inside the known classes is 1" if changed else ""
    caption = f"{shown}, coloured by {coloured} {MAP.format(projection=PROJECTIONS[section.projection], space=space)}"
    section.add("map", "Map of the features", drawing, caption)


def map_of(
    run: Run, rows: NDArray[np.intp], names: NDArray[np.object_], palette: Palette, projection: Projection
) -> tuple[FeatureMap, bool]:
    """The map of some rows of a run's table, and whether its features were whitened.

    Raises
    ------
    InputError
        When there are no features or no boxes, or they cannot be mapped.
    """
    if run.particles.features is None:
        raise InputError(f"the particle table of {run.name} has no features: the map is not shown")
    stack, boxes = boxes_of(run)
    features, changed = whitened(run, run.particles.features[rows])
    titles = particle_titles(run, rows, names[rows], palette)
    title = f"map of the features of {counted(len(rows), 'particle')}, {run.name}"
    made = feature_map(features, names[rows], palette, titles, stack, boxes[rows], name=title, projection=projection)
    return made, changed


def particle_titles(run: Run, rows: NDArray[np.intp], names: NDArray[np.object_], palette: Palette) -> list[str]:
    """What is said of each particle of a map: its colour's name, its row, what it was called, how new it is."""
    particles = run.particles.take(rows)
    called = texts(particles, "class") if "class" in particles else None
    novelty = numbers(particles, "novelty")
    titles = []
    for i, row in enumerate(rows):
        parts = [palette[names[i]].label, f"particle {row + 1:,} of {particles.tomogram[i]}"]
        if called is not None and called[i] != names[i]:
            parts.append(f"called {palette[called[i]].label}")
        if novelty is not None:
            parts.append(f"novelty {novelty[i]:.2f}")
        titles.append(" · ".join(parts))
    return titles


# ---- the cards ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What is known of one cluster, as shown; texts are empty where nothing is known.

    ``kind`` is the verdict's name among the page's styles, ``verdict`` its words; ``average`` is that of the blind
    average, or None with the ``absence`` told.
    """

    style: Style
    kind: str
    verdict: str
    reason: str
    average: Average | None
    absence: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Blind:
    """The run of a discovery's blind averages, its entries by cluster, and why clusters were skipped."""

    run: Run
    entries: dict[str, dict[str, Any]]
    skipped: dict[str, Any]


def cards(section: Section, number: NDArray[np.int64], truth: Truth | None, classes: Palette) -> list[Card]:
    """A card for every cluster of a discovery, in the order of their numbers.

    Parameters
    ----------
    section
        Of the run that found the clusters; what is missing beside it is noted there.
    number
        Cluster of each particle, from 1, 0 for none, shape (n,).
    truth
        True classes of the n particles; None where no truth is known.
    classes
        Styles of every class and cluster.
    """
    told = {as_number(one.get("cluster")): one for one in verdicts_of(section)}
    blind = section.attempt(averages_of, section.run)
    made = []
    for n in np.unique(number[number > 0]):
        members, verdict = number == n, told.get(float(n), {})
        average, absence = card_average(section, blind, f"cluster{n}", classes)
        true = None if truth is None else truth.names[members & truth.known]
        card = Card(
            style=classes[f"cluster{n}"],
            kind=KINDS.get(str(verdict.get("kind")), ""),
            verdict=str(verdict.get("kind") or "no verdict"),
            reason=str(verdict.get("reason") or ""),
            average=average,
            absence=absence,
            facts=card_facts(verdict, average, int(members.sum()), true, classes),
        )
        made.append(card)
    return made


def card_average(section: Section, blind: Blind | None, name: str, classes: Palette) -> tuple[Average | None, str]:
    """The blind average of a cluster, or None and why there is none; that is empty where a note says it already."""
    if blind is None:
        return None, ""
    if name not in blind.entries:
        return None, str(blind.skipped.get(name) or "the averaging made none")
    return section.attempt(class_average, blind.run, blind.entries[name], classes), ""


def card_facts(
    verdict: dict[str, Any], average: Average | None, size: int, truth: NDArray[np.object_] | None, classes: Palette
) -> dict[str, str]:
    """Numbers of one cluster as texts."""
    share, novel = as_number(verdict.get("share")), as_number(verdict.get("new_share"))
    facts = {"particles": f"{size:,}"}
    if average is not None and average.resolution is not None:
        limit = ", all that the voxels allow" if average.limited else ""
        facts["resolution"] = f"{average.resolution:.1f} Å{limit}"
    if novel is not None:
        facts["called new"] = f"{novel:.0%}"
    if share is not None:
        facts["most often called"] = f"{classes[str(verdict.get('name', ''))].label}, {share:.0%}"
    if truth is not None and len(truth):
        name, count = Counter(map(str, truth)).most_common(1)[0]
        facts["purity"] = f"{count / len(truth):.0%} {classes[name].label}"
    return facts


def verdicts_of(section: Section) -> list[dict[str, Any]]:
    """Verdicts on the clusters of a discovery; none, and a note, when their file is missing or damaged."""
    found = section.attempt(read_json, section.run.folder.parent / VERDICTS)
    return [mapping(entry) for entry in as_list(found)]


def averages_of(run: Run) -> Blind:
    """The blind averages beside the clusters of a discovery.

    Raises
    ------
    InputError
        When there are none, or they are not finished.
    """
    folder = run.folder.parent / AVERAGES
    if not (folder / RECORD).is_file():
        raise InputError(f"no run in {folder}: blind averages of the clusters are not shown")
    averages = read_run(folder, f"{run.name.rpartition('/')[0]}/{AVERAGES}".lstrip("/"))
    entries = [mapping(entry) for entry in as_list(read_json(folder / "averages.json"))]
    return Blind(averages, {str(e.get("class")): e for e in entries}, mapping(averages.results.get("skipped")))


# ---- one function a command -----------------------------------------------------------------------------------------


def features_section(section: Section, classes: Palette, brief: bool) -> None:
    """What the features are, and their map unless a discovery on the page shows it."""
    section.title = "Features"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None:
        return
    width = 0 if particles.features is None else particles.features.shape[1]
    boxes = counted(len(particles), "subtomogram")
    section.lead = f"{boxes} placed in the feature space of a trained network, {width} values each."
    if brief:
        section.lead += " Their map is in the section of the discovery that was made from them."
        return
    truth = section.attempt(true_classes, section.run)
    if truth is not None:
        add_map(section, truth.names, classes, f"true class. {truth.how}")
    elif "class" in particles:
        add_map(section, texts(particles, "class"), classes, "the class that the table names.")
    else:
        one = np.full(len(particles), "particle", dtype=object)
        add_map(section, one, Palette.of(["particle"]), "nothing, for no class is known.")


def discover_section(section: Section, classes: Palette, brief: bool) -> None:
    """The clusters over the slices, a card for each, and the map of the particles."""
    section.title = "Discovered structures"
    particles = section.attempt(lambda: section.run.particles)
    if particles is None or not has_column(section, particles, "cluster"):
        return
    number = numbers(particles, "cluster")
    assert number is not None
    names = np.array([f"cluster{int(n)}" if n > 0 else "" for n in number], dtype=object)
    truth = section.attempt(true_classes, section.run)
    made = cards(section, number.astype(np.int64), truth, classes)
    where = add_slices(section, Colouring(names, classes, quiet=frozenset([""])), 4, "Clusters in the tomogram")
    describe(section, made, names, where)
    caption = (
        "Verdicts follow from what the network calls the particles, how many are unlike all known classes, and the "
        "blind average. Slices: its central xy, xz and yz, found without a reference; dense matter is bright. "
        "Curve: Fourier shell correlation of two halves; the dashed line is 0.143, where the resolution is read."
    )
    if truth is not None:
        caption += f" Purity: share of the most frequent true class, which the clustering did not see. {truth.how}"
    section.add("cards", "The clusters", made, caption)
    add_map(section, names, classes, "cluster.")


def describe(section: Section, made: list[Card], names: NDArray[np.object_], where: str) -> None:
    """Say how many clusters there are, and which of them are new."""
    new = numbers(section.run.particles, "is_new")
    alarmed = "" if new is None else f" {int(new.sum()):,} of them are unlike all classes that the network knows."
    boxes, clusters = counted(len(names), "subtomogram"), counted(len(made), "cluster")
    section.lead = f"{boxes} of {where} fell into {clusters} in the feature space of the network.{alarmed}"
    novel = [f"{card.style.word} ({card.facts['particles']} particles)" for card in made if card.kind == "new"]
    section.tiles += [("Clusters", f"{len(made)}"), ("New structures", f"{len(novel)}")]
    kinds = Counter(card.verdict for card in made).most_common()
    told = listed([counted(count, kind, MANY.get(kind, kind)) for kind, count in kinds])
    which = f"; new: {listed(novel)}" if novel else ""
    section.finding = f"In the feature space of the network, {boxes} fell into {clusters}: {told}{which}."
