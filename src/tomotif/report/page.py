"""Run folders → one self-contained HTML file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tomotif import __version__
from tomotif.core import InputError
from tomotif.io.files import replacing
from tomotif.io.run_folder import as_output_error
from tomotif.report.blocks import Bar, Block, Projection, Section
from tomotif.report.chapters import chapters_of, lies_in
from tomotif.report.palette import Palette
from tomotif.report.runs import Run, mapping, read_runs
from tomotif.report.sections import build_section, class_names, class_titles, value_text
from tomotif.report.slices import SliceView

TITLE = "What was found in the tomograms"
HEAD_PICTURES, TILES = 2, 6
NAMED = ("classify", "cluster", "discover", "patterns", "embed")  # they know more of particles than picking does
READER = {"classify": "score", "features": "discover", "patterns": "embed"}  # these tell more of the same particles
WRAPPERS = ("demo", "run", "mine")  # pipelines: their time is that of the runs inside them


@dataclass(frozen=True)
class Chapter:
    """Sections under one heading; the heading is empty when there is only one chapter."""

    title: str
    sections: list[tuple[str, Section]]


@dataclass(frozen=True)
class RunFacts:
    """How one run was made, as texts."""

    name: str
    facts: dict[str, str]
    settings: dict[str, str]
    results: dict[str, str]
    inputs: list[tuple[str, str, str]]


def write_report(
    folders: Sequence[Path], output: Path, *, title: str = TITLE, projection: Projection = "t-sne"
) -> Path:
    """Write one HTML page about run folders; it holds everything it shows and asks nothing of the network.

    Parameters
    ----------
    folders
        Run folders, in any order; the runs in their sub-folders are shown too, all in order of time.
    output
        The HTML file.
    title
        The page's heading.
    projection
        How maps of features are drawn: ``"t-sne"``, or ``"umap"``, which takes umap-learn and about a minute.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        When there is no folder, or one holds no run, or umap-learn is asked for and not installed. Files that are
        missing from a run are no error: the page says so.
    OutputError
        When the file cannot be written.
    """
    if not folders:
        raise InputError("expected at least one run folder, got none; give the folders that the commands wrote")
    if projection == "umap" and find_spec("umap") is None:
        raise InputError("expected umap-learn, which makes UMAP maps, got none; pip install 'tomotif[umap]'")
    text = render(read_runs(folders), title, projection)
    output = Path(output)
    with as_output_error(output), replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return output


def render(runs: Sequence[Run], title: str, projection: Projection = "t-sne") -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tomotif.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names, now = class_names(runs), datetime.now(UTC)
    classes = Palette.of(names, class_titles(names))
    shown = [run for run in runs if run.command not in (*WRAPPERS, "report")]
    sections = [build_section(run, classes, brief=told_elsewhere(run, shown), projection=projection) for run in shown]
    parts = chapters(sections)
    return environment.get_template("page.html").render(
        title=title,
        version=__version__,
        written=f"{now.day} {now:%B %Y, %H:%M} UTC",
        summary=summary(parts),
        tiles=head_tiles(sections, runs),
        pictures=head_pictures(sections),
        chapters=parts,
        filters=range(max([len(classes), *(len(view.legend) for view in views(sections))], default=0) + 1),
        timing=timing(runs),
        total=duration(sum(run.wall_s or 0.0 for run in timed(runs))),
        runs=[run_facts(run) for run in runs],
        versions=versions(runs),
    )


def told_elsewhere(run: Run, runs: Sequence[Run]) -> bool:
    """Whether another run on the page shows the same particles with more known of them."""
    if run.command == "average":  # a discovery's averages lie beside its clusters, whose cards show them
        return any(
            other.command == "discover"
            and other.folder.parent.resolve() == run.folder.parent.resolve()
            and reads(run, other)
            for other in runs
        )
    if run.command in READER:
        return any(other.command == READER[run.command] and reads(other, run) for other in runs)
    return run.command not in NAMED and any(other.command in NAMED for other in runs)


def reads(run: Run, other: Run) -> bool:
    """Whether a run has files of another one among its inputs."""
    return any(lies_in(item.get("path"), other) for item in run.inputs)


def chapters(sections: Sequence[Section]) -> list[Chapter]:
    """Sections in groups that belong together, numbered in the order of the page; one group has no heading."""
    of_run = {id(section.run): section for section in sections}
    groups = chapters_of([section.run for section in sections])
    number = itertools.count(1)
    return [
        Chapter(title if len(groups) > 1 else "", [(f"s{next(number)}", of_run[id(run)]) for run in runs])
        for title, runs in groups
    ]


def summary(told_in: Sequence[Chapter]) -> list[list[str]]:
    """What was found: a paragraph a chapter, a sentence a section."""
    told = [[section.finding for _, section in chapter.sections if section.finding] for chapter in told_in]
    return [lines for lines in told if lines]


def views(sections: Iterable[Section]) -> list[SliceView]:
    """Every view of slices on the page."""
    blocks: Iterable[Block] = itertools.chain.from_iterable(section.blocks for section in sections)
    return [block.data for block in blocks if block.kind == "view"]


def head_pictures(sections: Sequence[Section]) -> list[tuple[SliceView, str]]:
    """The views that say most, with their titles, one a section: named particles before mere picks."""
    by_section = [(section, next((b for b in section.blocks if b.kind == "view"), None)) for section in sections]
    best = [
        (block.data, block.title) for section, block in by_section if block is not None and section.run.command in NAMED
    ]
    others = [(block.data, block.title) for _, block in reversed(by_section) if block is not None]
    return best[-HEAD_PICTURES:] or others[:1]


def head_tiles(sections: Sequence[Section], runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Numbers for the page's head: the first ones that the sections offer, and the time it all took."""
    offered = [tile for section in sections for tile in section.tiles]
    merged: dict[str, str] = {}
    for label, text in offered:
        merged[label] = f"{merged[label]} + {text}" if label in merged else text
    whole = [run.wall_s for run in runs if run.command in WRAPPERS and run.wall_s is not None]
    seconds = sum(whole) or sum(run.wall_s or 0.0 for run in timed(runs))
    return [*list(merged.items())[: TILES - bool(seconds)], *([("Wall time", duration(seconds))] if seconds else [])]


def timed(runs: Sequence[Run]) -> list[Run]:
    """The runs whose times add up: not the pipelines that other runs lie in."""
    return [run for run in runs if run.command not in WRAPPERS and run.wall_s is not None] or [
        run for run in runs if run.wall_s is not None
    ]


def timing(runs: Sequence[Run]) -> list[Bar]:
    """A bar a run with its wall time and peak memory."""
    longest = max((run.wall_s or 0.0 for run in timed(runs)), default=0.0) or 1.0
    bars = []
    for run in timed(runs):
        memory = run.record.get("peak_memory_mb")
        text = duration(run.wall_s or 0.0) + (f" · {memory:,.0f} MB" if isinstance(memory, int | float) else "")
        bars.append(Bar(run.name.partition("/")[2] or run.name, text, (run.wall_s or 0.0) / longest, "var(--accent)"))
    return bars


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(0.042), duration(3.21), duration(75), duration(4000)
    ('0.04 s', '3.2 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of texts; lists of tables are counted only.

    >>> flat({"a": {"b": 1, "c": None}, "d": [{"e": 1}]})
    {'a.b': '1', 'a.c': '–', 'd': '1 entries'}
    """
    out: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            out[f"{prefix}{key}"] = f"{len(value)} entries"
        else:
            out[f"{prefix}{key}"] = value_text(value)
    return out


def run_facts(run: Run) -> RunFacts:
    """How a run was made."""
    device, argv = mapping(run.record.get("device")), run.record.get("argv")
    facts = {
        "command": str(run.record.get("command", "")),
        "started": run.started.strftime("%Y-%m-%d %H:%M:%S %Z") if run.started else "",
        "status": str(run.record.get("status", "")),
        "wall time": "" if run.wall_s is None else duration(run.wall_s),
        "peak memory": f"{run.record['peak_memory_mb']} MB" if "peak_memory_mb" in run.record else "",
        "seed": "" if run.record.get("seed") is None else str(run.record["seed"]),
        "processor": " · ".join(f"{value}" if key == "cpu" else f"{value} {key}" for key, value in device.items()),
        "typed": " ".join(map(str, argv)) if isinstance(argv, list) else "",
    }
    inputs = [
        (str(item.get("path", "")), size_text(item.get("bytes")), str(item.get("blake2", ""))) for item in run.inputs
    ]
    return RunFacts(
        run.name, {key: value for key, value in facts.items() if value}, flat(run.settings), flat(run.results), inputs
    )


def size_text(size: object) -> str:
    """Bytes in words; a folder has none.

    >>> size_text(6260224), size_text(300), size_text(0)
    ('6.3 MB', '0.3 kB', '')
    """
    if not isinstance(size, int) or size <= 0:
        return ""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def versions(runs: Sequence[Run]) -> dict[str, str]:
    """Versions of packages over all runs; where runs differ, all of them."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for package, version in mapping(run.record.get("versions")).items():
            found.setdefault(str(package), set()).add(str(version))
    return {package: " / ".join(sorted(versions)) for package, versions in found.items()}
