"""Every stage as a run folder: read nouns, call one task, write nouns. The command line and the pipelines share these.

A stage that already ended in its folder is not repeated; one that was killed continues there.
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import (
    Contrast,
    InputError,
    MissingWedge,
    Particles,
    Progress,
    Structure,
    Subtomograms,
    Tomogram,
    Volume,
)
from tomotif.engine.model_folder import CARD, find_model_folder, read_card
from tomotif.engine.predict import discard_shards
from tomotif.engine.pretrained import shipped_model_for
from tomotif.io.files import read_json, replacing, write_json
from tomotif.io.mrc import check_values, open_volume, write_volume
from tomotif.io.run_folder import RECORD, RunFolder, run_folder
from tomotif.io.stack import (
    DENSITY_NAME,
    STACK_NAME,
    TABLE_NAME,
    StackRows,
    create_stack,
    open_stack,
    read_subtomograms,
    write_subtomogram_table,
)
from tomotif.io.star import read_particles, read_tomograms, tomogram_frames, write_particles, write_tomograms
from tomotif.io.structure import load_structure, structure_names
from tomotif.ops.fourier import low_pass
from tomotif.pipelines.simulate import (
    PARTS,
    USUALLY_KEPT,
    Batch,
    Kept,
    TomogramSpec,
    check_spec,
    keeping_finished,
    make_all,
    structure_files,
)
from tomotif.report.figures import central_slices, stretch
from tomotif.tasks.average import AlignSettings, AverageSettings, ClassAverage, align_classes, average
from tomotif.tasks.classify import (
    ClassifierSettings,
    ClassifySettings,
    FeatureSettings,
    classify,
    measure_features,
    train_classifier,
)
from tomotif.tasks.cluster import ClusterSettings, cluster, describe_clusters
from tomotif.tasks.extract import ExtractSettings, box_voxel_size, extract, place_boxes
from tomotif.tasks.fit import Fits, FitSettings, check_size, fit, placed_density
from tomotif.tasks.pick import PickSettings, pick
from tomotif.tasks.score import ScoreSettings, score, with_true_poses
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

TOMOGRAMS = "tomograms.star"
SAME_SIZE = 0.02
"""Relative difference up to which two sizes of a tomogram are one: binning drops a few voxels at the border."""

Bar = Callable[[str], AbstractContextManager[Progress]]


def silent(title: str) -> AbstractContextManager[Progress]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Run:
    """How a stage runs: where to, whether anew, and what shows its progress."""

    output: Path
    overwrite: bool = False
    bar: Bar = silent

    def beside(self, name: str) -> Run:
        """The same for a folder inside the output."""
        return Run(self.output / name, self.overwrite, self.bar)


def table_of(path: Path) -> Path:
    """The star file itself, or the one in a run folder or beside a stack.

    Raises
    ------
    InputError
        When there is nothing there.
    """
    if not path.exists():
        raise InputError(f"expected a run folder or its {TABLE_NAME}, found no {path}; check the path")
    if path.suffix == Path(STACK_NAME).suffix:
        return path.with_name(TABLE_NAME)
    return path / TABLE_NAME if path.is_dir() else path


def stack_of(path: Path) -> Path:
    """The stack beside a table of particles, or beside the table that its run was made from, and so on.

    Raises
    ------
    InputError
        When there is none.
    """
    folder, seen = table_of(path).parent, set[Path]()
    while folder not in seen:
        seen.add(folder)
        if (folder / STACK_NAME).exists():
            return folder / STACK_NAME
        record = folder / RECORD
        inputs = read_json(record).get("inputs", []) if record.exists() else []
        tables = [table_of(path) for entry in inputs if (path := Path(entry["path"])).exists()]
        folder = next((table.parent for table in tables if table.name == TABLE_NAME and table.exists()), folder)
    raise InputError(
        f"expected {STACK_NAME} in {table_of(path).parent} or in the folder of the run it was made from, found none; "
        "give the folder of an extraction"
    )


def open_subtomograms(path: Path) -> tuple[Subtomograms, list[Path]]:
    """Subtomograms of a run folder or star file, and the files they come from."""
    table, stack = table_of(path), stack_of(path)
    return read_subtomograms(table, stack=stack), [table, stack]


def write_results(run: RunFolder, particles: Particles, source: Path, voxel_size: float) -> None:
    """Write the table of a stage that changed columns only, beside the same tomograms as the table it came from.

    Boxes that were simulated one by one, or come from elsewhere, have no tomograms: their positions are in pixels.
    """
    beside = table_of(source).with_name(TOMOGRAMS)
    if beside.exists():
        write_table(run, particles, read_tomograms(beside, check=False))
    else:
        names = dict.fromkeys(map(str, particles.tomogram))
        nothing = Volume(np.zeros((1, 1, 1), np.int8), voxel_size)
        stand_ins = [Tomogram(nothing, name) for name in names]
        write_particles(run / TABLE_NAME, particles, tomograms=stand_ins, style="relion3.1")


def write_table(run: RunFolder, particles: Particles, tomograms: Sequence[Tomogram]) -> None:
    """Write ``tomograms.star`` and then ``particles.star``."""
    write_tomograms(run / TOMOGRAMS, tomograms)
    write_particles(run / TABLE_NAME, particles, tomograms=tomograms)


def simulate_stage(
    spec: TomogramSpec,
    run: Run,
    *,
    count: int = 1,
    seed: int = 0,
    processes: int = 1,
    keep: Sequence[Kept] = USUALLY_KEPT,
) -> RunFolder:
    """Simulate tomograms with their truth: volumes, labels, tilt series, and the table of particles."""
    check_spec(spec)
    identity = {**spec.model_dump(mode="json"), "count": count, "keep": sorted(set(keep))}
    files = structure_files(spec)
    with (
        keeping_finished(run.output),
        run_folder(run.output, "simulate", identity, inputs=files, seed=seed, overwrite=run.overwrite) as folder,
    ):
        if folder.finished:
            return folder
        batch = Batch(spec, folder.path, seed, tuple(keep))
        with run.bar("simulating") as progress:
            make_all(batch, count, processes, progress)
        facts, tomograms, particles = batch.gather(count)
        write_table(folder, particles, tomograms)
        folder.record(particles=len(particles), classes=count_classes(particles), tomograms=facts)
        shutil.rmtree(folder / PARTS)
    return folder


class TrainingSetSettings(SubtomogramSettings):
    """Boxes like those that picking in a crowded cell gives: off-centre, with neighbours and a background class."""

    count: int = Field(default=1000, gt=0)
    """Boxes of each structure."""
    background: int = Field(default=1000, ge=0)
    """Boxes without a particle in the middle, of class "background"."""
    neighbours: int = Field(default=2, ge=0, le=32)
    """Other particles around the one in the middle."""
    snr_reference: str = "1bxn"
    """Whose signal the SNR is about: "each" for every structure its own, else one structure, such as "1bxn"."""


def training_set_stage(
    structures: Sequence[Structure], settings: SubtomogramSettings, run: Run, *, seed: int = 0
) -> RunFolder:
    """Simulate single subtomograms of known class: a stack with its table, as an extraction leaves them.

    Beside it lies ``density.mrcs``, the particle of every box alone, which training draws as a second task.
    """
    identity = {**settings.model_dump(mode="json"), "structures": [s.name for s in structures]}
    with run_folder(run.output, "simulate", identity, seed=seed, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        total = settings.count * len(structures) + settings.background
        grid = (total, settings.box_px, settings.voxel_size)
        with create_stack(folder / DENSITY_NAME, *grid) as density, create_stack(folder / STACK_NAME, *grid) as stack:
            rng = np.random.default_rng(seed)
            made = simulate_subtomograms(structures, settings, rng, stack=stack, density=density)
        write_subtomogram_table(
            folder / TABLE_NAME,
            made.particles,
            missing_wedge=made.missing_wedge,
            voxel_size=made.voxel_size,
            tomograms=[tomogram_of_one_box(made)],
            style="relion3.1",  # positions in pixels of the box, which no tomogram's size is needed to read
        )
        folder.record(particles=len(made), classes=count_classes(made.particles))
    return folder


def tomogram_of_one_box(made: Subtomograms) -> Tomogram:
    """What boxes that were simulated one by one lie in: a tomogram of the size of a box, with nothing in it."""
    nothing = np.broadcast_to(np.int8(0), (made.box_px,) * 3)
    return Tomogram(Volume(nothing, made.voxel_size), str(made.particles.tomogram[0]), made.missing_wedge, "bright")


def pick_stage(tomograms: Sequence[Tomogram], settings: PickSettings, run: Run) -> RunFolder:
    """Find particles in every tomogram."""
    files = [t.path for t in tomograms if t.path is not None]
    with run_folder(run.output, "pick", settings, inputs=files, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        found = []
        for tomogram in tomograms:
            with run.bar(f"picking in {tomogram.name}") as progress:
                found.append(pick(tomogram, settings, progress=progress))
        particles = Particles.concat(found)
        write_table(folder, particles, tomograms)
        folder.record(picks=len(particles), tomograms={t.name: len(p) for t, p in zip(tomograms, found, strict=True)})
    return folder


def extract_stage(
    particles: Path, settings: ExtractSettings, run: Run, *, tomograms: Sequence[Tomogram] | None = None
) -> RunFolder:
    """Cut subtomograms at the particles of a star file or run folder."""
    table = table_of(particles)
    if tomograms is None and not table.with_name(TOMOGRAMS).exists():
        raise InputError(f"expected {TOMOGRAMS} beside {table}, found none; name the tomograms with --tomograms")
    opened = list(tomograms) if tomograms is not None else read_tomograms(table.with_name(TOMOGRAMS))
    check_sizes(opened, table.with_name(TOMOGRAMS))
    files = [table, *(t.path for t in opened if t.path is not None)]
    rows = read_particles(table, tomograms=opened)
    placed = place_boxes(rows, opened, settings)
    used = [t for t in opened if t.name in set(placed.tomogram)]
    wedge, voxel_size = common_missing_wedge(used), box_voxel_size(used, settings)
    with run_folder(run.output, "extract", settings, inputs=files, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        with (
            run.bar("extracting") as progress,
            create_stack(folder / STACK_NAME, len(placed), settings.box_px, voxel_size) as stack,
        ):
            cut = extract(placed, opened, settings, stack, progress=progress)
        write_tomograms(folder / TOMOGRAMS, opened)
        write_subtomogram_table(folder / TABLE_NAME, cut, missing_wedge=wedge, voxel_size=voxel_size, tomograms=opened)
        folder.record(
            subtomograms=len(cut), dropped=len(rows) - len(cut), voxel_size=voxel_size, box_px=settings.box_px
        )
    return folder


def check_sizes(tomograms: Sequence[Tomogram], table: Path) -> None:
    """Refuse tomograms of another size in Å than a tomograms.star says: centred coordinates would be shifted."""
    frames = tomogram_frames(table)
    for tomogram in tomograms:
        if tomogram.name not in frames:
            continue
        expected, found = frames[tomogram.name].extent[::-1], np.array(tomogram.volume.extent)
        if np.max(np.abs(found / expected - 1)) > SAME_SIZE:
            raise InputError(
                f"expected tomogram {tomogram.name!r} to be {in_words(expected)} Å (zyx) as {table} says, got "
                f"{in_words(found)} Å; check its voxel size"
            )


def in_words(lengths: NDArray[np.floating]) -> str:
    """Lengths in whole Å, such as ``400 × 440 × 480``."""
    return " × ".join(f"{length:.0f}" for length in lengths)


def common_missing_wedge(tomograms: Sequence[Tomogram]) -> MissingWedge:
    """The one tilt range of these tomograms, which a stack shares; InputError when they differ by over a degree."""
    first = tomograms[0].missing_wedge
    for other in tomograms[1:]:
        wedge = other.missing_wedge
        apart = max(abs(wedge.tilt_min - first.tilt_min), abs(wedge.tilt_max - first.tilt_max))
        if wedge.tilt_axis != first.tilt_axis or apart > 1:
            raise InputError(
                "expected tomograms of one tilt range in one stack, got "
                f"{first.tilt_min:g} to {first.tilt_max:g} about {first.tilt_axis} ({tomograms[0].name}) and "
                f"{wedge.tilt_min:g} to {wedge.tilt_max:g} about {wedge.tilt_axis} ({other.name}); extract them apart"
            )
    return first


def model_for(subtomograms: Subtomograms, model: Path | None) -> Path:
    """The model folder that is given, or the one of the package that suits the voxel size; the boxes must fit it."""
    folder = shipped_model_for(subtomograms) if model is None else find_model_folder(model)
    read_card(folder).check_fits(subtomograms)
    return folder


def classify_stage(subtomograms: Path, model: Path | None, settings: ClassifySettings, run: Run) -> RunFolder:
    """Name the structure in every subtomogram of an extraction, by a shipped model when none is given."""
    found, files = open_subtomograms(subtomograms)
    model = model_for(found, model)
    files.append(model / CARD)
    with run_folder(run.output, "classify", settings, inputs=files, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        with run.bar("classifying") as progress:
            named = classify(found, files[1], model, settings, folder / "shards", progress=progress)
        write_results(folder, named, subtomograms, found.voxel_size)
        discard_shards(folder / "shards")
        folder.record(particles=len(named), classes=count_classes(named))
    return folder


def features_stage(subtomograms: Path, model: Path | None, settings: FeatureSettings, run: Run) -> RunFolder:
    """Project the subtomograms of an extraction into the feature space of a classifier, a shipped one when None."""
    found, files = open_subtomograms(subtomograms)
    model = model_for(found, model)
    files.append(model / CARD)
    with run_folder(run.output, "features", settings, inputs=files, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        with run.bar("measuring features") as progress:
            placed = measure_features(found, files[1], model, settings, folder / "shards", progress=progress)
        write_results(folder, placed, subtomograms, found.voxel_size)
        discard_shards(folder / "shards")
        folder.record(particles=len(placed), features=len(placed.feature_names))
    return folder


def cluster_stage(subtomograms: Path, settings: ClusterSettings, run: Run) -> RunFolder:
    """Group the subtomograms of an extraction by shape."""
    found, files = open_subtomograms(subtomograms)
    with run_folder(
        run.output, "cluster", settings, inputs=files, seed=settings.seed, overwrite=run.overwrite
    ) as folder:
        if folder.finished:
            return folder
        with run.bar("measuring shapes") as progress:
            grouped = cluster(found, settings, progress=progress)
        write_results(folder, grouped, subtomograms, found.voxel_size)
        folder.record(particles=len(grouped), clusters=describe_clusters(grouped))
    return folder


def has_orientations(subtomograms: Path) -> bool:
    """Whether a table of subtomograms says how its particles are turned: not all are as they lie."""
    turned = read_particles(table_of(subtomograms)).orientation
    return len(turned) > 0 and float(turned.magnitude().max()) > 1e-6


def average_stage(
    subtomograms: Path,
    settings: AverageSettings,
    run: Run,
    *,
    by: str = "class",
    seed: int = 0,
    truth: Path | None = None,
    search: AlignSettings | None = None,
) -> RunFolder:
    """Average each class (or cluster) with the poses of its table, of matching true particles, or found blindly.

    Parameters
    ----------
    subtomograms, settings, run
        What, how and where to.
    by
        Column that says which particles belong together.
    seed
        Of half-sets, starts and the mask correction.
    truth
        Table of true particles: average those that match one, with its pose.
    search
        Find the poses from the particles alone, in this way.
    """
    found, files = open_subtomograms(subtomograms)
    poses = "given"
    if truth is not None:
        files.append(table_of(truth))
        matched = with_true_poses(found.particles, read_particles(table_of(truth)))
        boxes = StackRows(open_stack(files[1])[0], matched["stack_index"].to_numpy(np.int64))
        found = replace(found, particles=matched, stack=cast(NDArray[np.float16], boxes))
        poses = "given: those of the true particles that the picks match"
    identity = {**settings.model_dump(mode="json"), "by": by, "search": search and search.model_dump(mode="json")}
    with run_folder(run.output, "average", identity, inputs=files, seed=seed, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        aligned = None
        if search is not None:
            with run.bar("aligning") as progress:
                aligned = align_classes(
                    found, settings, search, by=by, seed=seed, work=folder / "work", progress=progress
                )
            found, poses = aligned.subtomograms, "found from the particles alone"
        with run.bar("averaging") as progress:
            made = average(found, settings, by=by, poses=poses, rng=np.random.default_rng(seed), progress=progress)
        entries = [write_average(folder.path, one) for one in made.averages]
        if aligned is not None:
            entries = [{**e, **aligned.entry(one)} for e, one in zip(entries, made.averages, strict=True)]
            write_results(folder, found.particles, subtomograms, found.voxel_size)
        write_json(folder / "averages.json", entries)
        write_curves(folder / "fsc.csv", made.averages)
        folder.record(
            averages={entry["class"]: entry["resolution_A"] for entry in entries},
            skipped={skipped.name: skipped.reason for skipped in made.skipped},
            warnings={e["class"]: e["warnings"] for e in entries if e.get("warnings")},
        )
        shutil.rmtree(folder / "work", ignore_errors=True)
    return folder


def write_average(folder: Path, made: ClassAverage) -> dict[str, Any]:
    """Write the maps of one class and a picture of them, and give its entry of averages.json."""
    stem = made.name.replace("/", "_")
    write_volume(folder / f"{stem}.mrc", made.volume, made.voxel_size)
    for number, half in enumerate(made.halves, start=1):
        write_volume(folder / f"{stem}_half{number}.mrc", half, made.voxel_size)
    with replacing(folder / f"{stem}.png") as temporary:
        draw_average(temporary, made)
    return {**made.as_dict(), "file": f"{stem}.mrc"}


def write_curves(path: Path, averages: Sequence[ClassAverage]) -> None:
    """Write the Fourier shell correlations of all classes: one row a shell."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["class", "frequency_per_A", "resolution_A", "fsc"])
        for one in averages:
            for frequency, value in zip(one.frequencies, one.curve, strict=True):
                shell = f"{1 / frequency:.3f}" if frequency > 0 else ""
                table.writerow([one.name, f"{frequency:.6f}", shell, f"{value:.5f}"])


def draw_average(path: Path, made: ClassAverage) -> None:
    """Central slices of a map, and the Fourier shell correlation of its halves, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.6))
    planes = ("xy", "xz", "yz")
    for panel, plane, image in zip(axes, planes, central_slices(made.volume, planes=planes), strict=False):
        panel.imshow(stretch(image, 1, 99.8), cmap="gray", origin="lower")
        panel.set(title=plane, xticks=[], yticks=[])
    chart = axes[3]
    chart.plot(made.frequencies, made.curve, color="#0E8A8A")
    chart.axhline(0.143, color="0.6", linestyle="--", linewidth=0.8)
    chart.set(xlabel="spatial frequency (1/Å)", ylabel="FSC of the halves", ylim=(-0.1, 1.05))
    chart.set_title(f"{made.name}: {made.particles} particles, {made.resolution:.1f} Å", fontsize=9)
    figure.savefig(path, dpi=110, format="png")


def fit_stage(
    path: Path,
    structures: Sequence[str],
    settings: FitSettings,
    run: Run,
    *,
    voxel_size: float | None = None,
    contrast: Contrast = "bright",
) -> RunFolder:
    """Fit structures, by default all of the library, to a map; write their ranking and the best one where it lies."""
    names = list(structures) or structure_names()
    loaded = [load_structure(name) for name in names]
    volume = open_volume(path, voxel_size=voxel_size)
    check_size(volume)
    check_values(volume.data, str(path))
    bright = (-1 if contrast == "dark" else 1) * np.asarray(volume.data, dtype=np.float32)
    volume = replace(volume, data=bright)
    files = [path, *(Path(name) for name in names if name.lower() not in structure_names())]
    identity = {
        **settings.model_dump(mode="json"),
        "structures": [structure.name for structure in loaded],
        "voxel_size": volume.voxel_size,
        "contrast": contrast,
    }
    with run_folder(run.output, "fit", identity, inputs=files, seed=settings.seed, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        with run.bar("fitting") as progress:
            made = fit(volume, loaded, settings, progress=progress)
        best = next(structure for structure in loaded if structure.name == made.best.name)
        placed = placed_density(best, made.best, volume, made)
        write_volume(folder / "best_fit.mrc", placed, volume.voxel_size, volume.origin)
        write_fits(folder.path, made.as_dict())
        with replacing(folder / "fit.png") as temporary:
            draw_fit(temporary, low_pass(bright, volume.voxel_size, made.resolution), placed, made)
        folder.record(
            best=made.best.name,
            correlation=round(made.best.score, 4),
            fsc05_A=round(made.best.fsc05, 2),
            findings=made.findings(),
        )
    return folder


def write_fits(folder: Path, made: dict[str, Any]) -> None:
    """Write the fits as fits.json, and without curves and poses as fits.csv."""
    write_json(folder / "fits.json", made)
    keys = ("rank", "structure", "correlation", "mirror_correlation", "hand", "margin_to_next", "fsc05_A")
    with replacing(folder / "fits.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ("kind", *keys), extrasaction="ignore")
        table.writeheader()
        for kind in ("fits", "controls"):
            table.writerows({"kind": kind[:-1], **row} for row in made[kind])


def draw_fit(
    path: Path, volume: NDArray[np.floating], placed: NDArray[np.floating], made: Fits, others: int = 3
) -> None:
    """A picture: central slices of the map above those of the best structure, and Fourier shell correlations.

    Parameters
    ----------
    path
        PNG file to write.
    volume, placed
        The map and the best structure at the resolution compared, one shape.
    made
        All fits.
    others
        How many of the next best structures get a curve.
    """
    from matplotlib.figure import Figure

    planes = ("xy", "xz", "yz")
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    grid = figure.add_gridspec(2, 5)
    mirror = ", mirrored" if made.best.mirrored else ""
    for row, (data, label) in enumerate(((volume, "map"), (placed, f"{made.best.name}{mirror}"))):
        for column, image in enumerate(central_slices(data, planes=planes)):
            axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
            axes.imshow(stretch(image, 1, 99.8), cmap="gray", interpolation="nearest")
            axes.set_title(f"{label}, {planes[column]}", fontsize=9)
    axes = figure.add_subplot(grid[:, 3:])
    for rank, one in enumerate(made.fits[: 1 + others]):
        axes.plot(one.frequencies, one.curve, linewidth=1 if rank else 2.2, label=f"{one.name} {one.score:.2f}")
    for one in made.controls:
        label = f"{one.name.replace('_', ' ')} {one.score:.2f}"
        axes.plot(one.frequencies, one.curve, linewidth=1, linestyle="--", label=label)
    axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set(xlabel="spatial frequency (1/Å)", ylabel="FSC against the placed structure", ylim=(-0.3, 1.02))
    axes.set_title(f"{made.best.name}: FSC 0.5 at {made.best.fsc05:.0f} Å", fontsize=9)
    axes.legend(frameon=False, fontsize=8, title="correlation", title_fontsize=8)
    figure.savefig(path, dpi=110)


def score_stage(picks: Path, truth: Path, settings: ScoreSettings, run: Run, *, seed: int = 0) -> RunFolder:
    """Compare picks, and their classes where they have some, with the truth."""
    found, true = table_of(picks), table_of(truth)
    with run_folder(run.output, "score", settings, inputs=[found, true], seed=seed, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        beside = next((t.with_name(TOMOGRAMS) for t in (true, found) if t.with_name(TOMOGRAMS).exists()), None)
        tomograms = read_tomograms(beside, check=False) if beside is not None else []
        result = score(
            read_particles(found),
            read_particles(true),
            settings,
            extents={t.name: t.volume.extent for t in tomograms} or None,
            rng=np.random.default_rng(seed),
        ).as_dict()
        write_json(folder / "score.json", result)
        folder.record(macro_f1=result["macro_f1"], **result["detection"])
    return folder


def density_of(found: Subtomograms, path: Path) -> StackRows | None:
    """The particle of every box alone, when a simulation left that beside the boxes."""
    if not path.exists():
        return None
    stack, _ = open_stack(path)
    return StackRows(stack, found.particles["stack_index"].to_numpy(np.int64))


def train_stage(subtomograms: Path, settings: ClassifierSettings, run: Run) -> RunFolder:
    """Train a classifier on a stack whose table names classes."""
    found, files = open_subtomograms(subtomograms)
    beside = files[1].with_name(DENSITY_NAME)
    files += [beside] if beside.exists() else []
    with run_folder(run.output, "train", settings, inputs=files, seed=settings.seed, overwrite=run.overwrite) as folder:
        if folder.finished:
            return folder
        card = train_classifier(
            found, settings, folder.path, density=density_of(found, beside), progress=run.bar is not silent
        )
        folder.record(
            architecture=card.architecture, classes=list(card.classes), validation_accuracy=card.validation_accuracy
        )
    return folder


def count_classes(particles: Particles) -> dict[str, int]:
    """How many particles there are of each class."""
    return dict(sorted(Counter(map(str, particles["class"])).items()))
