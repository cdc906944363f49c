"""Particle and tomogram tables as RELION star files: 3.0, 3.1, 4 and 5 are read, 5 and 3.1 are written.

Cells are read as text and only the columns that tomotif uses are converted, so that a tomogram named ``050`` stays
``050`` and columns of other programs survive to the letter. Columns of the optics table come along as
``optics.rlnVoltage``, values of the general block as ``general.rlnTomoSubTomosAre2DStacks``, and both are put back in
place by writing. What splits a pose in RELION (origin shifts, subtomogram angles) is kept too: position and orientation
are the complete ones, and writing takes the kept parts off again, so a file that is read and written says the same.
"""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import starfile
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import Contrast, InputError, MissingWedge, Particles, Tomogram
from tomotif.core.particles import identity_rotations
from tomotif.io.euler import from_relion, reverse_axes, to_relion
from tomotif.io.files import existing_file, replacing
from tomotif.io.mrc import USUAL_WEDGE, open_tomogram

Blocks = dict[str, "pd.DataFrame | dict[str, Any]"]
Floats = NDArray[np.float64]

COORDINATES = tuple(f"rlnCoordinate{a}" for a in "XYZ")
CENTRED = tuple(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")
ANGLES = tuple(f"rlnAngle{a}" for a in ("Rot", "Tilt", "Psi"))
SUBTOMOGRAM_ANGLES = tuple(f"rlnTomoSubtomogram{a}" for a in ("Rot", "Tilt", "Psi"))
ORIGINS = tuple(f"rlnOrigin{a}Angst" for a in "XYZ")
ORIGINS_PX = tuple(f"rlnOrigin{a}" for a in "XYZ")
SIZES = tuple(f"rlnTomoSize{a}" for a in "XYZ")
# what a pixel of rlnCoordinate is, the first that is there; RELION 4 counts unbinned pixels of the tilt series
_PIXEL_SIZES = ("rlnTomoTiltSeriesPixelSize", "rlnMicrographPixelSize", "rlnPixelSize", "rlnImagePixelSize")
_IMAGE_PIXEL_SIZES = ("rlnImagePixelSize", "rlnPixelSize")
_PRIORS = ("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior")  # of the angles within the subtomogram
_LABELS = {"score": "rlnAutopickFigureOfMerit"}
_NAMES = {label: name for name, label in _LABELS.items()}
_TEXT = ("class", "group", "pattern", "name")  # ours, and text even when every value looks like a number
_UNWRITABLE = r"""['"#\t\r\n]"""


@dataclass(frozen=True)
class TomogramFrame:
    """What coordinates need of a tomogram: its extent xyz in Å, and its unbinned pixel in Å."""

    extent: Floats
    pixel_size: float


def read_particles(
    path: Path,
    *,
    tomograms: Sequence[Tomogram] | None = None,
    half_minus_one: bool = False,
    pixel_size: float | None = None,
) -> Particles:
    """Read particles from a star file of RELION 3.0, 3.1, 4 or 5, of Warp, or of tomotif.

    Parameters
    ----------
    path
        Star file. Features lie in the ``.npy`` beside it that it names.
    tomograms
        The tomograms the particles lie in, for their size: centred coordinates of RELION 5 need it. Those not given are
        looked up in ``tomograms.star`` in the same folder, ours or RELION's.
    half_minus_one
        Centred coordinates count from (size / 2 - 1) pixels instead of RELION's size / 2: some programs differ.
    pixel_size
        What a pixel of ``rlnCoordinateX/Y/Z`` is in Å; overrules the file. Warp counts pixels of the exported images.

    Returns
    -------
    Particles
        Position = coordinate - A_subtomogram · origin, zyx in Å from the corner; see :mod:`tomotif.io.euler`.

    Raises
    ------
    InputError
        When the file is missing or no star file, lacks needed columns, or a value cannot be used.
    """
    path = Path(path)
    blocks = read_blocks(path)
    table = _particle_block(path, blocks)
    general = blocks.get("general", {})
    facts = dict(general) if isinstance(general, dict) else {}
    features, feature_names = _read_features(path, facts, len(table))
    table = _with_optics(path, table, blocks.get("optics"))
    table = table.assign(**{f"general.{key}": str(value) for key, value in facts.items()})

    names = _tomogram_names(path, table)
    frames = tomogram_frames(path.with_name("tomograms.star"), tomograms or ())
    coordinate = _coordinates(path, table, names, frames, half_minus_one, pixel_size)
    subtomogram = _rotations(path, table, SUBTOMOGRAM_ANGLES)
    position = coordinate - subtomogram.apply(_origin(path, table))
    orientation = reverse_axes(subtomogram * _rotations(path, table, ANGLES))
    used = {*COORDINATES, *CENTRED, *ANGLES, *ORIGINS_PX, "rlnTomoName"}
    columns = {_name(c): _values(_name(c), table[c]) for c in table.columns if c not in used}
    return Particles(
        names,
        np.ascontiguousarray(position[:, ::-1]),
        orientation,
        pd.DataFrame(columns, index=range(len(table))),
        features,
        feature_names,
    )


def write_particles(
    path: Path,
    particles: Particles,
    *,
    tomograms: Sequence[Tomogram],
    style: Literal["relion5", "relion3.1"] = "relion5",
) -> None:
    """Write particles as a RELION star file, and their features as ``<stem>_features.npy`` beside it.

    Plain columns get labels: ``class`` → ``tomotifClass`` (and ``rlnClassNumber``, 1-based in sorted order), ``score``
    → ``rlnAutopickFigureOfMerit``, other ``foo_bar`` → ``tomotifFooBar``.

    Parameters
    ----------
    path
        Star file to write.
    particles
        What to write.
    tomograms
        The tomograms they lie in: centred coordinates (RELION 5) count from their centre, pixels (RELION 3.1) are
        theirs where the particles do not know another pixel size.
    style
        ``"relion5"``: centred coordinates in Å; ``"relion3.1"``: coordinates in pixels, one rotation a particle.

    Raises
    ------
    InputError
        When a particle's tomogram is not among those given, or a text cannot stand in a star file.
    OutputError
        When the place cannot be written.
    """
    path = Path(path)
    names, table = particles.tomogram, particles.columns
    extent, pixel = _frames_of(names, tomogram_frames(path.with_name("tomograms.star"), tomograms), path)
    subtomogram = _rotations(path, table, SUBTOMOGRAM_ANGLES)
    origin = subtomogram.apply(_numbers(path, table, ORIGINS, 0.0))
    coordinate = particles.position[:, ::-1] + origin
    if style == "relion5":
        labels, coordinate = CENTRED, coordinate - extent / 2
        within = reverse_axes(subtomogram).inv() * particles.orientation
        table = _filled(table, {"optics.rlnTomoTiltSeriesPixelSize": pixel})
    else:
        table = _filled(table, {"optics.rlnImagePixelSize": pixel, "rlnMicrographName": pd.Series(names) + ".mrc"})
        known = _pixel_sizes(path, table, _PIXEL_SIZES)
        labels, coordinate = COORDINATES, coordinate / (pixel if known is None else known)[:, None]
        within = particles.orientation
        table = _in_one_rotation(table, origin)
    numbers = np.char.mod("%.6f", np.column_stack([coordinate, to_relion(within)])).astype(object)
    poses = pd.DataFrame(dict(zip((*labels, *ANGLES), numbers.T, strict=True)), index=table.index)
    poses.insert(3, "rlnTomoName", names)  # not first: a row must not begin with "data_", as a name may
    optics, rest = _split_optics(table)
    general, rest = _split_general(path, rest)
    general |= _write_features(path, particles)
    body = pd.concat([poses, _labelled(rest)], axis=1)
    blocks: dict[str, pd.DataFrame | dict[str, str]] = {"general": general} if general else {}
    write_blocks(path, blocks | {"optics": optics, "particles": body})


def read_tomograms(
    path: Path, *, missing_wedge: MissingWedge = USUAL_WEDGE, contrast: Contrast = "dark", check: bool = True
) -> list[Tomogram]:
    """Open the tomograms of a star file, ours or RELION 5's.

    Parameters
    ----------
    path
        Star file. Paths in it count from its folder, or from a folder above it as RELION's do.
    missing_wedge
        Tilt range for tomograms whose star file does not tell it.
    contrast
        Contrast for tomograms whose star file does not tell it.
    check
        Read all values once for NaN, infinity and constancy.

    Raises
    ------
    InputError
        When the table lacks needed columns or a tomogram's file is missing or bad.
    """
    path = Path(path)
    table = _tomogram_block(path, read_blocks(path))
    file_column = next((c for c in _RECONSTRUCTIONS if c in table), None)
    if file_column is None:
        raise InputError(_lacks(path, ("rlnTomoReconstructedTomogram",), table))
    binning = _numbers(path, table, ("rlnTomoTomogramBinning",), 1.0)[:, 0]
    voxel_sizes = _numbers(path, table, ("rlnTomoTiltSeriesPixelSize",))[:, 0] * binning
    opened = []
    for (_, row), voxel_size in zip(table.iterrows(), voxel_sizes, strict=True):
        file = _beside_or_above(path, str(row[file_column]))
        if file is None:
            raise InputError(f"expected the tomogram {row[file_column]} named in {path}, but there is no such file")
        wedge = _row_wedge(path, row) or missing_wedge
        side: Contrast = row.get("tomotifContrast", contrast)
        name = str(row["rlnTomoName"])
        opened.append(
            open_tomogram(
                file, name=name, voxel_size=float(voxel_size), missing_wedge=wedge, contrast=side, check=check
            )
        )
    return opened


def write_tomograms(path: Path, tomograms: Sequence[Tomogram]) -> None:
    """Write a star file of tomograms, RELION 5's columns and ours; paths count from its folder.

    Raises
    ------
    InputError
        When a tomogram lies in no file.
    OutputError
        When the place cannot be written.
    """
    path = Path(path)
    for t in tomograms:
        if t.path is None:
            raise InputError(f"expected a tomogram that lies in a file, but {t.name!r} does not; write it first")
    folder = path.resolve().parent
    rows = [
        {
            "rlnTomoName": t.name,
            "rlnTomoTiltSeriesPixelSize": t.voxel_size,
            "rlnTomoTomogramBinning": 1,
            **dict(zip(SIZES, reversed(t.shape), strict=True)),
            "rlnTomoReconstructedTomogram": os.path.relpath(Path(t.path or "").resolve(), folder),
            "tomotifTiltMin": t.missing_wedge.tilt_min,
            "tomotifTiltMax": t.missing_wedge.tilt_max,
            "tomotifTiltAxis": t.missing_wedge.tilt_axis,
            "tomotifContrast": t.contrast,
        }
        for t in tomograms
    ]
    # the name is not first: a row must not begin with "data_"
    order = ["rlnTomoTiltSeriesPixelSize", "rlnTomoName"]
    frame = pd.DataFrame(rows)
    frame = frame[[*order, *(c for c in frame.columns if c not in order)]] if rows else frame
    write_blocks(path, {"global": _labelled(frame)})


def tomogram_frames(path: Path, tomograms: Iterable[Tomogram] = ()) -> dict[str, TomogramFrame]:
    """Extent and unbinned pixel of tomograms by name: from a star file if it is there, and of those given.

    The given ones win. No tomogram's file is opened.
    """
    frames: dict[str, TomogramFrame] = {}
    if path.is_file():
        table = _tomogram_block(path, read_blocks(path))
        if all(c in table for c in (*SIZES, "rlnTomoTiltSeriesPixelSize")):
            pixels = _numbers(path, table, ("rlnTomoTiltSeriesPixelSize",))
            extents = _numbers(path, table, SIZES) * pixels
            frames = {
                str(name): TomogramFrame(extent, float(pixel[0]))
                for name, extent, pixel in zip(table["rlnTomoName"], extents, pixels, strict=True)
            }
    given = {t.name: TomogramFrame(np.array(t.volume.extent[::-1], np.float64), t.voxel_size) for t in tomograms}
    return frames | given


def tilt_ranges(path: Path) -> dict[str, MissingWedge]:
    """Measured tilt ranges that a star file of tomograms tells, by name. No tomogram's file is opened."""
    table = _tomogram_block(path, read_blocks(path))
    wedges = {str(row["rlnTomoName"]): _row_wedge(path, row) for _, row in table.iterrows()}
    return {name: wedge for name, wedge in wedges.items() if wedge is not None}


def read_blocks(path: Path) -> Blocks:
    """All blocks of a star file with every cell as text: a loop is a DataFrame, a simple block a dict.

    Raises
    ------
    InputError
        When the file is missing or cannot be read as a star file.
    """
    path = existing_file(path, "a star file")
    linecache.checkcache(str(path))  # starfile reads through this cache; a failed read would leave old lines in it
    try:
        with path.open(encoding="utf-8") as file:
            labels = {line.split()[0][1:] for line in file if line.startswith("_")}
        blocks: Blocks = starfile.read(path, always_dict=True, parse_as_string=sorted(labels))
    except (ValueError, TypeError, IndexError, KeyError) as error:  # what starfile and pandas raise on malformed text
        raise InputError(f"expected a star file, but {path} cannot be read as one ({_first_line(error)})") from error
    if not blocks or any(block is None for block in blocks.values()):
        raise InputError(f"expected a star file with data_ blocks, but {path} has none that can be read")
    return {
        name: block.astype(object).fillna("nan") if isinstance(block, pd.DataFrame) else block
        for name, block in blocks.items()
    }


def write_blocks(path: Path, blocks: Mapping[str, pd.DataFrame | dict[str, str]]) -> None:
    """Write blocks of text cells as a star file, whole or not at all; the same blocks give the same bytes.

    Not by the starfile package, which puts the time of day into the file.

    Raises
    ------
    InputError
        When a text holds a character that a star file cannot.
    OutputError
        When the place cannot be written.
    """
    lines = ["# Written by tomotif", ""]
    for name, block in blocks.items():
        lines += [f"data_{name}", ""]
        if isinstance(block, pd.DataFrame):
            columns = [_cells(path, str(label), block[label].tolist()) for label in block.columns]
            lines += ["loop_", *(f"_{label} #{i}" for i, label in enumerate(block.columns, 1))]
            lines += map("\t".join, zip(*columns, strict=True))
        else:
            lines += [f"_{label} {_cells(path, label, [value])[0]}" for label, value in block.items()]
        lines += ["", ""]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def label_of(name: str) -> str:
    """Star label of one of our column names; labels of other programs stay.

    >>> label_of("mass_kda"), label_of("score"), label_of("rlnCtfMaxResolution")
    ('tomotifMassKda', 'rlnAutopickFigureOfMerit', 'rlnCtfMaxResolution')
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return name
    return _LABELS.get(name, "tomotif" + re.sub(r"(?:^|_)([a-z])", lambda found: found[1].upper(), name))


def _name(label: str) -> str:
    """Our column name of a star label: the inverse of :func:`label_of`."""
    if not label.startswith("tomotif"):
        return _NAMES.get(label, label)
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), label.removeprefix("tomotif")).removeprefix("_")


def _values(name: str, column: pd.Series[Any]) -> pd.Series[Any]:
    """One of our columns as numbers where all are, else as text; columns of other programs stay text."""
    plain = column.reset_index(drop=True)
    if label_of(name) == name or name in _TEXT:
        return plain
    try:
        return pd.to_numeric(plain.where(plain != "nan"))
    except ValueError:
        return plain


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The table under star labels, every cell text at full precision, with class numbers beside class names."""
    if "class" in table and len(table):
        classes = table["class"].astype(str)
        numbers = {name: i for i, name in enumerate(sorted(set(classes)), 1)}
        table = table.assign(rlnClassNumber=classes.map(numbers))
    return pd.DataFrame({label_of(str(c)): _text(table[c]) for c in table.columns}, index=table.index)


def _text(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as text: shortest digits that give the same number, truth as 1 and 0, missing text as nothing."""
    if column.dtype == bool:
        column = column.astype(int)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return pd.Series(column.to_numpy().astype(str).astype(object), index=column.index)
    return column.astype(object).where(column.notna(), "").map(str)


def _cells(path: Path, label: str, cells: list[str]) -> list[str]:
    """Cells of a star file: empty text and text with spaces in quotes; what would not come back is refused."""
    if re.search(_UNWRITABLE, "".join(cells)):
        bad = next(cell for cell in cells if re.search(_UNWRITABLE, cell))
        raise InputError(f"expected text without quotes, # and tabs for {label} of {path}, got {bad!r}; rename it")
    return [f'"{cell}"' if " " in cell or not cell else cell for cell in cells]


def _particle_block(path: Path, blocks: Blocks) -> pd.DataFrame:
    """The loop with coordinates."""
    loops = [block for block in blocks.values() if isinstance(block, pd.DataFrame)]
    for loop in loops:
        if all(c in loop for c in CENTRED) or all(c in loop for c in COORDINATES):
            return loop
    raise InputError(_lacks(path, (*CENTRED, "or", *COORDINATES), max(loops, key=len, default=pd.DataFrame())))


def _tomogram_block(path: Path, blocks: Blocks) -> pd.DataFrame:
    """The loop with tomogram names and pixel sizes."""
    loops = [block for block in blocks.values() if isinstance(block, pd.DataFrame)]
    needed = ("rlnTomoName", "rlnTomoTiltSeriesPixelSize")
    for loop in loops:
        if all(c in loop for c in needed):
            return loop
    raise InputError(_lacks(path, needed, max(loops, key=len, default=pd.DataFrame())))


def _lacks(path: Path, wanted: Sequence[str], table: pd.DataFrame) -> str:
    there = ", ".join(map(str, table.columns)) or "no columns"
    return f"expected the columns {', '.join(wanted).replace(', or,', ' or')} in {path}, but it has {there}"


def _with_optics(path: Path, table: pd.DataFrame, block: pd.DataFrame | dict[str, Any] | None) -> pd.DataFrame:
    """The particle table with the columns of each particle's optics group, prefixed ``optics.``."""
    if block is None:
        return table
    optics = block if isinstance(block, pd.DataFrame) else pd.DataFrame([block]).astype(str)
    if "rlnOpticsGroup" in table and "rlnOpticsGroup" in optics:
        rows = optics.reset_index(drop=True).reset_index().set_index("rlnOpticsGroup")["index"]
        row = table["rlnOpticsGroup"].map(rows.to_dict())
        if row.isna().any():
            missing = table["rlnOpticsGroup"][row.isna()].iloc[0]
            raise InputError(f"expected optics group {missing} in the optics table of {path}, got {list(rows.index)}")
        index = row.to_numpy(dtype=np.int64)
    elif len(optics) == 1:
        index = np.zeros(len(table), dtype=np.int64)
    else:
        raise InputError(_lacks(path, ("rlnOpticsGroup",), table))
    wide = optics.drop(columns="rlnOpticsGroup", errors="ignore").add_prefix("optics.").iloc[index]
    return pd.concat([table.reset_index(drop=True), wide.reset_index(drop=True)], axis=1)


def _split_optics(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Optics table (one row a group) and the particle table with group numbers; kept numbers stay where they can."""
    columns = [c for c in table.columns if str(c).startswith("optics.")]
    wide = pd.DataFrame({c.removeprefix("optics."): _text(table[c]) for c in columns}, index=table.index)
    kept = _text(table["rlnOpticsGroup"]) if "rlnOpticsGroup" in table else pd.Series("1", index=table.index)
    by = [*(wide[c] for c in wide.columns), kept]
    group = table.groupby(by, sort=False).ngroup() if len(table) else pd.Series(dtype=np.int64, index=table.index)
    first = ~group.duplicated()
    # two files may have used one number for different optics: then all are numbered anew
    number = kept if kept[first].is_unique and "" not in set(kept) else (group + 1).astype(str)
    optics = wide[first].reset_index(drop=True)
    optics.insert(0, "rlnOpticsGroup", number[first].to_numpy(dtype=object))
    if "rlnOpticsGroupName" not in optics:
        optics.insert(1, "rlnOpticsGroupName", "opticsGroup" + optics["rlnOpticsGroup"])
    return optics, table.drop(columns=columns).assign(rlnOpticsGroup=number.to_numpy(dtype=object))


def _split_general(path: Path, table: pd.DataFrame) -> tuple[dict[str, str], pd.DataFrame]:
    """Values of the general block, one for the whole file, and the table without them."""
    columns = [c for c in table.columns if str(c).startswith("general.")]
    general: dict[str, str] = {}
    for column in columns:
        values = [value for value in _text(table[column]).unique() if value]  # none where tables were joined
        if len(values) > 1:
            raise InputError(f"expected one {column} for all of {path}, got {list(values)[:3]}; write separate files")
        general |= {column.removeprefix("general."): value for value in values}
    return general, table.drop(columns=columns)


def _tomogram_names(path: Path, table: pd.DataFrame) -> NDArray[np.object_]:
    """Name of each particle's tomogram; of a RELION 3 file the micrograph's file name without folder and suffix."""
    if "rlnTomoName" in table:
        return table["rlnTomoName"].to_numpy(dtype=object)
    if "rlnMicrographName" not in table:
        raise InputError(_lacks(path, ("rlnTomoName", "or", "rlnMicrographName"), table))
    micrographs = table["rlnMicrographName"].astype(str)
    stems = {name: re.sub(r"\.(mrcs?|rec|map|st|ali|hdf)$", "", name.rsplit("/", 1)[-1]) for name in set(micrographs)}
    return micrographs.map(stems).to_numpy(dtype=object)


def _coordinates(
    path: Path,
    table: pd.DataFrame,
    names: NDArray[np.object_],
    frames: Mapping[str, TomogramFrame],
    half_minus_one: bool,
    pixel_size: float | None,
) -> Floats:
    """Coordinates xyz in Å from the corner, before the origin shift, shape (n, 3)."""
    in_pixels = all(c in table for c in COORDINATES)
    all_known = set(names) <= frames.keys()
    if all(c in table for c in CENTRED) and (all_known or not in_pixels):
        extent, unbinned = _frames_of(names, frames, path)
        return _numbers(path, table, CENTRED) + extent / 2 - half_minus_one * unbinned[:, None]
    known = _pixel_sizes(path, table, _PIXEL_SIZES) if pixel_size is None else np.full(len(table), pixel_size)
    if known is None and all_known:
        known = _frames_of(names, frames, path)[1]
    if known is None:
        wanted = (*_PIXEL_SIZES, "or", "rlnDetectorPixelSize", "rlnMagnification")
        raise InputError(_lacks(path, wanted, table) + "; give the pixel size of the coordinates")
    return _numbers(path, table, COORDINATES) * known[:, None]


def _frames_of(names: NDArray[np.object_], frames: Mapping[str, TomogramFrame], path: Path) -> tuple[Floats, Floats]:
    """Extent xyz (n, 3) and unbinned pixel (n,) in Å of each particle's tomogram."""
    code, unique = pd.factorize(names)
    missing = sorted(str(name) for name in unique if name not in frames)
    if missing:
        raise InputError(
            f"expected the size of tomogram {missing[0]!r}, which the particles of {path} lie in, but it is not among "
            f"{sorted(frames) or 'the tomograms given (none)'}; give the tomogram, or put its tomograms.star beside"
        )
    extents = np.array([frames[name].extent for name in unique]).reshape(-1, 3)
    pixels = np.array([frames[name].pixel_size for name in unique], dtype=np.float64)
    return extents[code], pixels[code]


def _filled(table: pd.DataFrame, defaults: Mapping[str, Any]) -> pd.DataFrame:
    """The table with columns added, or filled in where rows have no value."""
    new = {name: pd.Series(np.asarray(value), index=table.index) for name, value in defaults.items()}
    kept = {name: table[name].where(table[name].notna(), value) for name, value in new.items() if name in table}
    return table.assign(**(new | kept))


def _in_one_rotation(table: pd.DataFrame, origin: Floats) -> pd.DataFrame:
    """The table without subtomogram angles and what refers to them; origin shifts xyz in Å turn to the tomogram's."""
    if any(label in table for label in ORIGINS):
        table = table.assign(**dict(zip(ORIGINS, origin.T, strict=True)))
    if not any(label in table for label in SUBTOMOGRAM_ANGLES):
        return table
    return table.drop(columns=[c for c in (*SUBTOMOGRAM_ANGLES, *_PRIORS) if c in table])


def _origin(path: Path, table: pd.DataFrame) -> Floats:
    """Origin shifts xyz in Å in the frame of the subtomogram, shape (n, 3); RELION 3.0 gives pixels of the image."""
    if any(c in table for c in ORIGINS) or not any(c in table for c in ORIGINS_PX):
        return _numbers(path, table, ORIGINS, 0.0)
    pixel = _pixel_sizes(path, table, _IMAGE_PIXEL_SIZES)
    if pixel is None:
        raise InputError(_lacks(path, _IMAGE_PIXEL_SIZES, table) + "; the origin shifts are in pixels")
    return _numbers(path, table, ORIGINS_PX, 0.0) * pixel[:, None]


def _pixel_sizes(path: Path, table: pd.DataFrame, labels: Sequence[str]) -> Floats | None:
    """Pixel size of each particle in Å by the first of the labels that is there, or by detector and magnification."""
    for label in labels:
        for column in (label, f"optics.{label}"):
            if column in table:
                return _numbers(path, table, (column,))[:, 0]
    if "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        detector_um, magnification = _numbers(path, table, ("rlnDetectorPixelSize", "rlnMagnification")).T
        return detector_um * 1e4 / magnification
    return None


def _rotations(path: Path, table: pd.DataFrame, labels: Sequence[str]) -> Rotation:
    """Rotations of xyz vectors by RELION's angles, identity where there are none."""
    if not any(c in table for c in labels):
        return identity_rotations(len(table))
    return reverse_axes(from_relion(_numbers(path, table, labels, 0.0)))


def _numbers(path: Path, table: pd.DataFrame, labels: Sequence[str], default: float | None = None) -> Floats:
    """Columns as finite numbers, shape (n, len(labels)); absent or unknown ones are ``default`` where that is given."""
    columns = []
    for label in labels:
        if label not in table:
            if default is None:
                raise InputError(_lacks(path, (label,), table))
            columns.append(np.full(len(table), default))
            continue
        values = pd.to_numeric(table[label], errors="coerce").to_numpy(dtype=np.float64)
        if default is not None:
            unknown = table[label].isna() | (table[label] == "")  # rows of another table that were joined
            values = np.where(unknown.to_numpy(), default, values)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(
                f"expected a number for {label} in {path}, got {table[label].iloc[row]!r} in row {row + 1}"
            )
        columns.append(values)
    return np.column_stack(columns)


def _write_features(path: Path, particles: Particles) -> dict[str, str]:
    """Write the features beside the star file; returns what the general block says of them."""
    if particles.features is None:
        return {}
    if any("," in name or re.search(_UNWRITABLE, name) for name in particles.feature_names):
        raise InputError(f"expected feature names without commas, quotes and #, got {particles.feature_names}")
    beside = path.with_name(f"{path.stem}_features.npy")
    with replacing(beside) as temporary:
        np.save(temporary, particles.features.astype(np.float32, copy=False), allow_pickle=False)
    named = {"tomotifFeatureNames": ",".join(particles.feature_names)} if particles.feature_names else {}
    return {"tomotifFeatures": beside.name} | named


def _read_features(path: Path, facts: dict[str, Any], count: int) -> tuple[NDArray[np.float32] | None, tuple[str, ...]]:
    """Features that the general block names, taken out of ``facts``."""
    file = facts.pop("tomotifFeatures", None)
    names = tuple(str(facts.pop("tomotifFeatureNames", "")).split(","))
    if file is None:
        return None, ()
    beside = existing_file(path.with_name(str(file)), f"the features named in {path}")
    try:
        features = np.load(beside, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"expected features as a .npy array, but {beside} is not one ({error})") from error
    if len(features) != count:
        raise InputError(
            f"expected {count} feature vectors in {beside} for {path}, got {len(features)}; if rows were taken out "
            "of the table, delete the line _tomotifFeatures from its data_general block"
        )
    return features, names if names != ("",) else ()


_RECONSTRUCTIONS = ("rlnTomoReconstructedTomogram", "rlnTomoReconstructedTomogramDenoised")
_TILTS = ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle")


def _row_wedge(path: Path, row: pd.Series[Any]) -> MissingWedge | None:
    """Tilt range that a row of a tomogram table tells, by itself or by its tilt series' star file."""
    if "tomotifTiltMin" in row:
        low, high = _numbers(path, row.to_frame().T, ("tomotifTiltMin", "tomotifTiltMax"))[0]
        return MissingWedge(float(low), float(high), row.get("tomotifTiltAxis", "y"))
    series = _beside_or_above(path, str(row.get("rlnTomoTiltSeriesStarFile", "")))
    if series is None:
        return None
    for block in read_blocks(series).values():
        label = next((c for c in _TILTS if c in block), None)
        if isinstance(block, pd.DataFrame) and label is not None and len(block) > 1:
            tilts = _numbers(series, block, (label,))
            return MissingWedge(float(tilts.min()), float(tilts.max()))
    return None


def _beside_or_above(star: Path, name: str) -> Path | None:
    """A file named in a star file: from its folder, or from one of three above, where a RELION project starts."""
    folder = star.resolve().parent
    places = ((start / name).resolve() for start in (folder, *folder.parents[:3]))
    return next((place for place in places if name and place.is_file()), None)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
