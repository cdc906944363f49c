"""The section of a score: tables with intervals, the random baseline, the confusion matrix, reliability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tomotif.io.files import read_json
from tomotif.report.blocks import Section, as_list, as_number
from tomotif.report.calibration import add_scored_answers
from tomotif.report.confusion import SPECIAL, confusion_matrix
from tomotif.report.palette import Palette, Style
from tomotif.report.runs import mapping

RATES = ("precision", "recall", "f1", "f_beta")


@dataclass(frozen=True)
class Value:
    """A score with its bootstrap interval, as texts; empty where there is none."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """One row of a score table."""

    label: str
    style: Style | None
    counts: list[str]
    values: list[Value]


@dataclass(frozen=True)
class ScoreTable:
    """A score table with the names of its columns; ``footer`` rows are set apart."""

    columns: list[str]
    rows: list[ScoreRow]
    footer: list[ScoreRow]


def fraction_text(value: Any, interval: Any = None) -> Value:
    """A fraction with three decimals, and its interval.

    >>> fraction_text(0.83251, [0.8, 0.9])
    Value(text='0.833', interval='0.80–0.90')
    """
    number, bounds = as_number(value), [as_number(bound) for bound in as_list(interval)]
    if number is None:
        return Value("–")
    known = len(bounds) == 2 and None not in bounds
    return Value(f"{number:.3f}", f"{bounds[0]:.2f}–{bounds[1]:.2f}" if known else "")


def count_text(value: Any) -> str:
    """A count, or a dash where there is none."""
    number = as_number(value)
    return "–" if number is None else f"{number:,.0f}"


def score_class_names(score: dict[str, Any]) -> list[str]:
    """Class names a score mentions."""
    confusion = mapping(score.get("confusion"))
    named = [str(mapping(entry).get("class", "")) for entry in as_list(score.get("classes"))]
    crossed = [str(name) for key in ("true", "predicted") for name in as_list(confusion.get(key))]
    return sorted({*named, *crossed} - set(SPECIAL))


def class_score_table(score: dict[str, Any], classes: Palette) -> ScoreTable:
    """Scores of every class, the macro mean and what random placement would score; of plain picks what was found."""
    intervals, baseline = mapping(score.get("intervals")), mapping(score.get("random"))
    by_class, named = mapping(intervals.get("classes")), as_number(score.get("macro_f1")) is not None
    counts, rates = ("true", "predicted", "correct") if named else ("true",), ("found", *RATES) if named else ("found",)
    rows = []
    for entry in map(mapping, as_list(score.get("classes"))):
        name = str(entry.get("class", ""))
        values = [fraction_text(entry.get(key), by_class.get(name) if key == "f1" else None) for key in rates]
        rows.append(
            ScoreRow(classes[name].label, classes[name], [count_text(entry.get(key)) for key in counts], values)
        )
    if not named:
        return ScoreTable(["true", "found"], rows, [])
    blank, none = [Value("")] * 3, [""] * 3
    f1 = fraction_text(score["macro_f1"], intervals.get("macro_f1"))
    f_beta = fraction_text(score.get("macro_f_beta"), intervals.get("macro_f_beta"))
    footer = [ScoreRow("mean over classes (macro)", None, none, [*blank, f1, f_beta])]
    if as_number(baseline.get("macro_f1")) is not None:
        chance = [*blank, fraction_text(baseline["macro_f1"]), Value("")]
        footer.append(ScoreRow("the same with random positions", None, none, chance))
    columns = ["true", "called so", "correct", "found", "precision", "recall", "F1", f_beta_label(score)]
    return ScoreTable(columns, rows, footer)


def detection_table(score: dict[str, Any]) -> ScoreTable:
    """Class-blind scores: whether particles were found at all."""
    detection, baseline = mapping(score.get("detection")), mapping(score.get("random"))
    counts, intervals = mapping(score.get("counts")), mapping(mapping(score.get("intervals")).get("detection"))
    row = ScoreRow(
        "picks",
        None,
        [count_text(counts.get("true")), count_text(counts.get("picks")), count_text(detection.get("matched"))],
        [
            *(fraction_text(detection.get(key), intervals.get(key)) for key in RATES),
            fraction_text(detection.get("false_per_true")),
        ],
    )
    values = [*(fraction_text(baseline.get(key)) for key in RATES), Value("")]
    footer = [ScoreRow("as many at random positions", None, ["", "", ""], values)] if baseline else []
    return ScoreTable(
        ["true", "picks", "matched", "precision", "recall", "F1", f_beta_label(score), "false per true"], [row], footer
    )


def f_beta_label(score: dict[str, Any]) -> str:
    """Name of F-beta with its beta."""
    beta = as_number(score.get("beta"))
    return "Fβ" if beta is None else f"F{beta:g}"


def score_section(section: Section, classes: Palette, brief: bool) -> None:
    """Score tables and the confusion matrix."""
    section.title = "Scores against the truth"
    score = mapping(section.attempt(read_json, section.run / "score.json"))
    if not score:
        return
    counts, intervals, baseline = (mapping(score.get(key)) for key in ("counts", "intervals", "random"))
    fraction = as_number(score.get("fraction"))
    near = "" if fraction is None else f" within {fraction:g} × the particle's radius"
    section.lead = f"Picks and true particles are matched one to one{near}. Scores are fractions."
    if as_number(counts.get("rejected")):
        section.lead += (
            f" {count_text(counts['rejected'])} picks that the network called background were set aside first."
        )
    add_finding(section, score)
    unit = "tomograms" if intervals.get("unit") == "tomogram" else "single particles, not over tomograms"
    how = f"Intervals: {as_number(intervals.get('level')) or 0.95:.0%} bootstrap over {unit}."
    how += f" Random: mean of {count_text(baseline.get('repeats'))} placements." if baseline else ""
    section.add("scores", "Finding particles, whatever they are called", detection_table(score), how)
    naming = as_number(score.get("macro_f1")) is not None
    title = "Finding and naming, class by class" if naming else "Found, class by class"
    caption = "“Found”: a pick lies there, whatever its class."
    if naming:
        caption += (
            f" Precision, recall and F1 of a class count a pick only when its place and its class are right. {how}"
        )
    if as_list(score.get("classes")):
        section.add("scores", title, class_score_table(score, classes), caption)
    caption = "Rows: what is there. Columns: what it was called. Counts, and their fraction of the row."
    section.add("confusion", "Confusion matrix", confusion_matrix(mapping(score.get("confusion")), classes), caption)
    if naming:
        add_scored_answers(section)


def add_finding(section: Section, score: dict[str, Any]) -> None:
    """The score in a sentence and as numbers for the page's head."""
    detection, intervals, baseline = (mapping(score.get(key)) for key in ("detection", "intervals", "random"))
    recall, macro = as_number(detection.get("recall")), as_number(score.get("macro_f1"))
    parts = []
    if recall is not None:
        parts.append(f"{recall:.0%} of the true particles were found")
        section.tiles.append(("Recall of the picks", f"{recall:.2f}"))
    if macro is not None:
        value = fraction_text(macro, intervals.get("macro_f1"))
        between = f" (interval {value.interval})" if value.interval else ""
        parts.append(f"position and class together score a macro F1 of {macro:.2f}{between}")
        section.tiles.append(("Macro F1", f"{macro:.2f}"))
    chance = as_number(baseline.get("macro_f1" if macro is not None else "recall"))
    random = "" if chance is None else f"; random positions would reach {chance:.2f}"
    if parts:
        section.finding = f"Against the truth, {' and '.join(parts)}{random}."
