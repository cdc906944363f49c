"""Whether probabilities mean what they say: reliability diagrams, and the held-out particles of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomotif.core import BACKGROUND, InputError
from tomotif.io.star import read_particles
from tomotif.ops.calibration import BINS, expected_calibration_error, reliability, softmax
from tomotif.report.blocks import Section, as_number, numbers, texts
from tomotif.report.confusion import confusion_of
from tomotif.report.figures import INK, drawn, quiet_axes
from tomotif.report.palette import Palette
from tomotif.report.runs import Run, places
from tomotif.report.truth import FRACTION, matched_classes, true_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANSWERS = "#0E8A8A"
HOW_TO_READ = (
    f"Answers in {BINS} equal intervals of their probability; above, how often they are right; on the dashed line they "
    "are right as often as they say. Below, the number of answers in each. The expected calibration error is the mean "
    "distance from the line over all answers (0 is best; Guo et al. 2017, ICML)."
)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram (SVG) with its heading and its numbers as texts."""

    title: str
    chart: str
    facts: dict[str, str]


def reliability_diagram(
    probability: NDArray[np.floating], correct: NDArray[np.bool_], *, title: str, name: str
) -> Reliability:
    """How often answers of each probability are right.

    Parameters
    ----------
    probability
        Of the answers that were given, 0 to 1, shape (n,), n > 0.
    correct
        Whether they were right, shape (n,).
    title
        Heading.
    name
        What the chart is, for those who hear the page; unlike that of any other chart.
    """
    table = reliability(probability, correct)
    middle = (np.minimum((table["probability"].to_numpy() * BINS).astype(int), BINS - 1) + 0.5) / BINS
    accuracy, count = table["accuracy"].to_numpy(), table["count"].to_numpy()

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 2.5)), alpha=0.55)
        above.plot(table["probability"], accuracy, color=ANSWERS, linewidth=1.8, marker="o", markersize=4.5)
        above.set(xlim=(0, 1), ylim=(-0.03, 1.03))
        below.bar(middle, count, width=0.9 / BINS, color=ANSWERS, alpha=0.35)
        below.set(ylim=(0, 1.35 * count.max()), yticks=[])
        for x, n in zip(middle, count, strict=True):
            below.text(x, n + 0.05 * count.max(), short_count(int(n)), ha="center", fontsize=6.5, color=INK)
        quiet_axes(above, "", "accuracy")
        quiet_axes(below, "predicted probability", "answers")

    facts = {
        "expected calibration error": f"{expected_calibration_error(probability, correct):.3f}",
        "mean probability": f"{np.mean(probability):.3f}",
        "accuracy": f"{np.mean(correct):.3f}",
        "answers": f"{len(correct):,}",
    }
    return Reliability(title, drawn(draw, name=name, size=(4.4, 3.6)), facts)


def short_count(count: int) -> str:
    """A count in four signs at most.

    >>> short_count(950), short_count(12_345), short_count(1_234_567)
    ('950', '12k', '1M')
    """
    return f"{count}" if count < 10_000 else f"{count // 1000}k" if count < 1_000_000 else f"{count // 1_000_000}M"


def add_answers(section: Section, classes: Palette) -> None:
    """Confusion matrix and reliability diagram of a run that named particles whose true class is known."""
    particles = section.run.particles
    truth = section.attempt(true_classes, section.run)
    if truth is None:
        return
    named, true = texts(particles, "class")[truth.known], truth.names[truth.known]
    correct = named == true
    section.add(
        "confusion",
        "Confusion matrix",
        confusion_of(true, named, classes),
        f"Rows: what is there. Columns: what it was called. Counts, and their fraction of the row. {truth.how}",
    )
    section.lead += f" Against the truth of the simulation, {correct.mean():.1%} of the names are right."
    probability = numbers(particles, "probability")
    if probability is not None:
        name = f"reliability diagram, {section.run.name}"
        diagram = reliability_diagram(probability[truth.known], correct, title="Names given", name=name)
        section.add("reliability", "Reliability diagram", [diagram], HOW_TO_READ)


def add_scored_answers(section: Section) -> None:
    """Reliability diagram of the picks that a score compared with the truth."""
    found = section.attempt(scored_answers, section.run)
    if found is None or not len(found[0]):
        return
    diagram = reliability_diagram(
        *found, title="Place and name of the picks", name=f"reliability diagram, {section.run.name}"
    )
    caption = f"An answer is right when a particle of that class is there. Background is left out. {HOW_TO_READ}"
    section.add("reliability", "Reliability diagram", [diagram], caption)


def scored_answers(run: Run) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Probabilities of the picks that a score read, and whether place and class were right; None without probabilities.

    Raises
    ------
    InputError
        When the tables that the score read are not there any more.
    """
    tables = [path for path in (Path(str(item.get("path", ""))) for item in run.inputs) if path.suffix == ".star"]
    if len(tables) != 2:
        return None
    picks, truth = (read_particles(where_now(run, table)) for table in tables)
    if "class" not in picks or "probability" not in picks:
        return None
    picks = picks.take((picks["class"] != BACKGROUND).to_numpy())
    fraction, radius = (as_number(run.settings.get(key)) for key in ("fraction", "radius"))
    true = matched_classes(picks, truth, fraction=fraction or FRACTION, radius=radius)
    return picks["probability"].to_numpy(np.float64), texts(picks, "class") == true


def where_now(run: Run, path: Path) -> Path:
    """Where a file that a run read lies now: where it was, or near a run folder that was moved.

    Raises
    ------
    InputError
        When it is gone.
    """
    found = next((place / path.name for place in places(run, path) if (place / path.name).is_file()), None)
    if found is None:
        raise InputError(f"{path}, which {run.name} read, was not found; whether its probabilities hold is not shown")
    return found


def add_held_out(section: Section, classes: Palette) -> None:
    """Confusion matrix and reliability diagrams of the particles that a training held out."""
    found = section.attempt(held_out, section.run)
    if found is None or not len(found[1]):
        return
    logits, target, temperature, names = found
    best, true = names[logits.argmax(axis=1)], names[target]
    section.add(
        "confusion",
        "Confusion matrix of the held-out particles",
        confusion_of(true, best, classes),
        "Rows: what is there. Columns: what the trained network calls it. Counts, and their fraction of the row. These "
        "particles were not learned from; the best epoch was chosen by them.",
    )
    diagrams = [
        reliability_diagram(
            softmax(logits, divisor).max(axis=1),
            best == true,
            title=title,
            name=f"reliability diagram, {title}, {section.run.name}",
        )
        for title, divisor in (("Before temperature scaling", 1.0), (f"At temperature {temperature:.2f}", temperature))
    ]
    caption = (
        f"{HOW_TO_READ} The temperature was fitted to these same particles, so new ones come out a little worse than "
        "the second diagram."
    )
    section.add("reliability", "Reliability diagrams of the held-out particles", diagrams, caption)


def held_out(run: Run) -> tuple[NDArray[np.float32], NDArray[np.int64], float, NDArray[np.object_]]:
    """What a trained network says of the particles that its training held out.

    Returns
    -------
    logits
        Shape (n, c).
    target
        Index of the true class of each, shape (n,).
    temperature
        Of the model.
    classes
        The names, shape (c,).

    Raises
    ------
    InputError
        When a file of the model is missing or damaged, or does not belong to the others.
    """
    from tomotif.engine.model_folder import KNOWN, Known, last_layer, load_model  # takes torch

    known = Known.load(run / "model")
    network, card = load_model(run / "model")
    _, last = last_layer(network)
    fits = known.held.shape == (len(known.held_class), last.in_features)
    if not fits or known.held_class.max(initial=0) >= len(card.classes):
        raise InputError(
            f"expected embeddings of {last.in_features} values and {len(card.classes)} classes in "
            f"{run / 'model' / KNOWN}, as the network has, got others; train the model again"
        )
    weight, bias = (part.detach().numpy() for part in (last.weight, last.bias))
    return known.held @ weight.T + bias, known.held_class, card.temperature, np.array(card.classes, dtype=object)
