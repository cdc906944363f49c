"""MRC volumes (MRC2014, Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002): memory-mapped in, whole files out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp
from numpy.typing import DTypeLike, NDArray

from tomotif.core import Contrast, InputError, Labels, MissingWedge, Tomogram, Volume
from tomotif.io.files import allocate, existing_file, read_json, replacing, write_json

HEADER_BYTES = 1024
USUAL_WEDGE = MissingWedge()  # ±60°, what most tilt series measure
VOLUME, VOLUME_STACK = 1, 401  # space group numbers that say what an MRC file holds
_DTYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
_MODES = {np.dtype(dtype): mode for mode, dtype in _DTYPES.items()}
_IMOD_STAMP = 1146047817  # says that IMOD wrote the file and that its flags mean something
_IMOD_SIGNED_BYTES = 1
_SLAB_VOXELS = 8 * 2**20  # 64 MiB as float64
_ANISOTROPY = 1e-3


@dataclass(frozen=True)
class MrcHeader:
    """What the first bytes of an MRC file say.

    Parameters
    ----------
    mode
        MRC data mode.
    shape
        Columns, rows and sections as zyx.
    dtype
        Type of the values with byte order, or None for a mode that tomotif does not read.
    offset
        Bytes before the data.
    size
        Bytes of the whole file, as found.
    space_group
        0 or 1 for a volume, 401 for a stack of volumes.
    depth
        Sections of one volume (of a stack, or the whole).
    spacing
        Voxel edges zyx in Å, 0 where the header does not know.
    origin
        Corner zyx in Å.
    axes
        Which of x, y, z (1, 2, 3) are columns, rows and sections.
    """

    mode: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any] | None
    offset: int
    size: int
    space_group: int
    depth: int
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    axes: tuple[int, int, int]

    @property
    def expected_size(self) -> int:
        """Bytes the file should have."""
        values = self.shape[0] * self.shape[1] * self.shape[2]
        return self.offset + values * (self.dtype.itemsize if self.dtype is not None else 0)

    @property
    def voxel_size(self) -> float | None:
        """Voxel edge in Å, or None when the header says 0 or exactly 1.0 Å, which is what unset headers say."""
        mean = float(np.mean(self.spacing))
        return None if min(self.spacing) <= 0 or np.allclose(self.spacing, 1.0, rtol=0, atol=1e-6) else mean

    @property
    def is_isotropic(self) -> bool:
        """Whether the voxel edges agree to one part in a thousand."""
        return max(self.spacing) - min(self.spacing) <= _ANISOTROPY * max(self.spacing)


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file, not its data.

    Raises
    ------
    InputError
        When the file is missing, a folder, or not an MRC file.
    """
    path = existing_file(path, "an MRC file")
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"expected an MRC file with a header of {HEADER_BYTES} bytes, but {path} has {len(raw)} bytes in all"
        )
    if raw[208:211] != b"MAP":
        raise InputError(f"expected an MRC file ('MAP' at byte 208), but {path} has {raw[208:212]!r} there; convert it")
    try:
        order = byte_order_from_machine_stamp(raw[212:216])
    except ValueError as error:
        raise InputError(f"expected the machine stamp of an MRC file, but {path} has {raw[212:216].hex()}") from error
    header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    if min(shape) <= 0 or int(header["nsymbt"]) < 0:
        raise InputError(f"expected the size of a volume in the header of {path}, got {shape} voxels zyx")
    sampling = [int(header[m]) or n for m, n in zip(("mz", "my", "mx"), shape, strict=True)]
    spacing = tuple(abs(float(header["cella"][a])) / m for a, m in zip("zyx", sampling, strict=True))
    origin = tuple(float(header["origin"][a]) for a in "zyx")
    if not any(origin):
        starts = (int(header[f"n{a}start"]) for a in "zyx")
        origin = tuple(start * edge for start, edge in zip(starts, spacing, strict=True))
    return MrcHeader(
        mode=int(header["mode"]),
        shape=shape,
        dtype=_dtype(int(header["mode"]), order, bytes(header["extra2"])),
        offset=HEADER_BYTES + int(header["nsymbt"]),
        size=path.stat().st_size,
        space_group=int(header["ispg"]),
        depth=sampling[0],
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=(origin[0], origin[1], origin[2]),
        axes=(int(header["mapc"]), int(header["mapr"]), int(header["maps"])),
    )


def open_volume(path: Path, *, voxel_size: float | None = None) -> Volume:
    """Open an MRC file memory-mapped; nothing is read but the header.

    Parameters
    ----------
    path
        File of mode 0 (int8), 1 (int16), 2 (float32), 6 (uint16) or 12 (float16).
    voxel_size
        Edge of a voxel in Å; overrules the header. Needed where the header says 0 or exactly 1.0 Å.

    Raises
    ------
    InputError
        Missing file, a folder, not an MRC, truncated, another mode, a stack, unknown or anisotropic voxel size.
    """
    header = read_header(path)
    data = map_data(path, header)
    if header.space_group >= VOLUME_STACK:
        raise InputError(
            f"expected one volume, but {path} is a stack of {header.shape[0] // header.depth} volumes; "
            "give the particles.star beside it"
        )
    return Volume(data, _checked_voxel_size(path, header, voxel_size), header.origin)


def open_tomogram(
    path: Path,
    *,
    name: str | None = None,
    voxel_size: float | None = None,
    missing_wedge: MissingWedge = USUAL_WEDGE,
    contrast: Contrast = "dark",
    check: bool = True,
) -> Tomogram:
    """Open a reconstruction memory-mapped, with the facts of its tilt series.

    Parameters
    ----------
    path
        MRC file.
    name
        Its name in particle tables; the file name without its suffix by default.
    voxel_size
        Edge of a voxel in Å; overrules the header.
    missing_wedge
        Measured tilt range in degrees, and tilt axis.
    contrast
        ``"dark"`` when dense matter is low, as in raw tomograms.
    check
        Read all values once for NaN, infinity and constancy.

    Raises
    ------
    InputError
        As :func:`open_volume` and :func:`check_values`.
    """
    path = Path(path)
    volume = open_volume(path, voxel_size=voxel_size)
    if check:
        check_values(volume.data, str(path))
    return Tomogram(volume, name or path.stem, missing_wedge, contrast, path)


def check_values(data: NDArray[Any], name: str) -> None:
    """Refuse a volume that holds NaN or infinity, or the same value everywhere; reads it slab by slab.

    Parameters
    ----------
    data
        Volume, shape (nz, ny, nx); may be memory-mapped.
    name
        What to call it in the message.

    Raises
    ------
    InputError
        Naming the first bad voxel zyx, or the constant value.
    """
    lowest, highest = np.inf, -np.inf
    for start, slab in slabs(data):
        low, high = float(slab.min()), float(slab.max())  # NaN and infinity both show here
        if not np.isfinite([low, high]).all():
            first = np.argwhere(~np.isfinite(slab))[0]
            at = (int(start + first[0]), int(first[1]), int(first[2]))
            raise InputError(
                f"expected finite values in {name}, got {slab[tuple(first)]} at voxel {at} (zyx); "
                "mask or interpolate such voxels first"
            )
        lowest, highest = min(lowest, low), max(highest, high)
    if lowest == highest:
        raise InputError(f"expected a volume with contrast, but every voxel of {name} is {lowest:g}; nothing to find")


def slabs(data: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """First index and slab of a volume, one after the other along z, of about 8 million voxels each."""
    depth = max(1, _SLAB_VOXELS // data[0].size)
    for start in range(0, len(data), depth):
        yield start, np.asarray(data[start : start + depth])


def write_volume(
    path: Path, data: NDArray[Any], voxel_size: float, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> None:
    """Write a volume as MRC, whole or not at all.

    Parameters
    ----------
    path
        File to write.
    data
        Volume, shape (nz, ny, nx): float32, float16, int8, int16 or uint16; may be memory-mapped.
    voxel_size
        Edge of a voxel in Å.
    origin
        Corner zyx in Å.

    Raises
    ------
    TypeError
        For another dtype or number of dimensions.
    OutputError
        When the place cannot be written or is full.
    """
    if data.ndim != 3:
        raise TypeError(f"expected a volume zyx, got an array of shape {data.shape}")
    header = new_header(data.shape, data.dtype, voxel_size, origin=origin)
    with replacing(path) as temporary:
        allocate(temporary, HEADER_BYTES + data.size * data.dtype.itemsize)
        with temporary.open("r+b") as file:
            file.seek(HEADER_BYTES)
            statistics = _write_slabs(file, data)
            for key, value in zip(("dmin", "dmax", "dmean", "rms"), statistics, strict=True):
                header[key] = value
            file.seek(0)
            file.write(header.tobytes())


def write_labels(path: Path, labels: Labels) -> None:
    """Write labels as MRC of mode 0 or 6, and their class names as JSON beside it.

    Raises
    ------
    ValueError
        When labels are negative or above 65,535.
    OutputError
        When the place cannot be written.
    """
    path = Path(path)
    highest = int(labels.data.max())
    if int(labels.data.min()) < 0 or highest > np.iinfo(np.uint16).max:
        raise ValueError(f"expected labels from 0 to 65535, got {labels.data.min()} to {highest}")
    dtype = np.int8 if highest <= np.iinfo(np.int8).max else np.uint16
    write_volume(path, labels.data.astype(dtype, copy=False), labels.voxel_size)
    if labels.names:
        write_json(path.with_suffix(".json"), {str(label): name for label, name in labels.names.items()})
    else:
        path.with_suffix(".json").unlink(missing_ok=True)


def open_labels(path: Path) -> Labels:
    """Open labels memory-mapped (mode 0, 1 or 6), with the class names beside them when there are any.

    Raises
    ------
    InputError
        As :func:`open_volume`, and when the values are not integers.
    """
    path = Path(path)
    volume = open_volume(path)
    if not np.issubdtype(volume.data.dtype, np.integer):
        raise InputError(f"expected integer labels (MRC mode 0, 1 or 6), but {path} holds {volume.data.dtype}")
    beside = path.with_suffix(".json")
    names = {int(label): str(name) for label, name in read_json(beside).items()} if beside.exists() else {}
    return Labels(volume.data.view(), volume.voxel_size, names)  # type: ignore[arg-type]  # integer was checked


def new_header(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    voxel_size: float,
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    depth: int | None = None,
) -> NDArray[np.void]:
    """MRC2014 header of a volume zyx, or of a stack of volumes of ``depth`` sections each.

    Raises
    ------
    TypeError
        For a dtype that has no MRC mode.
    """
    mode = _MODES.get(np.dtype(dtype).newbyteorder("="))
    if mode is None:
        known = ", ".join(str(known) for known in _MODES)
        raise TypeError(f"expected values of type {known}, got {np.dtype(dtype)}; convert them first")
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"] = nx, ny, nz
    header["mx"], header["my"], header["mz"] = nx, ny, depth or nz
    header["mode"] = mode
    header["cella"] = (nx * voxel_size, ny * voxel_size, (depth or nz) * voxel_size)
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = 0, -1, -2, -1  # the standard's "not determined"
    header["ispg"] = VOLUME if depth is None else VOLUME_STACK
    header["nversion"] = 20141
    header["origin"] = tuple(reversed(origin))
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)
    header["nlabl"] = 1
    header["label"][0] = b"tomotif"
    return header


def map_data(path: Path, header: MrcHeader) -> NDArray[Any]:
    """The values of an MRC file, memory-mapped read-only, shape (nz, ny, nx).

    Raises
    ------
    InputError
        When the mode is not one of 0, 1, 2, 6, 12, the axes are permuted, or the file is too short.
    """
    if header.dtype is None:
        raise InputError(f"expected MRC mode 0, 1, 2, 6 or 12, but {path} has mode {header.mode}; convert it")
    if header.axes not in ((1, 2, 3), (0, 0, 0)):
        raise InputError(f"expected columns, rows, sections = x, y, z, but {path} has axes {header.axes}; transpose it")
    if header.size < header.expected_size:
        raise InputError(
            f"expected {header.expected_size:,} bytes for {_times(header.shape)} voxels of {header.dtype.name}, but "
            f"{path} has {header.size:,} bytes; the file is truncated, copy it again"
        )
    return np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape)


def _checked_voxel_size(path: Path, header: MrcHeader, given: float | None) -> float:
    """The voxel size to use in Å: the given one, else the header's where it is known and isotropic."""
    if given is not None:
        return given
    if header.voxel_size is None:
        raise InputError(
            f"expected a voxel size in the header of {path}, got {header.spacing[2]:g} Å, which means unknown; "
            "give --voxel-size in Å"
        )
    if not header.is_isotropic:
        edges = " × ".join(f"{edge:.4f}" for edge in header.spacing)
        raise InputError(
            f"expected cubic voxels (edges equal to {_ANISOTROPY:g}), but {path} has {edges} Å (zyx); resample it, or "
            "give --voxel-size if the header is wrong"
        )
    return header.voxel_size


def _dtype(mode: int, order: Literal["<", ">"], extra: bytes) -> np.dtype[Any] | None:
    """Type of the values; IMOD's flags tell whether the bytes of mode 0 are unsigned."""
    if mode not in _DTYPES:
        return None
    stamp, flags = np.frombuffer(extra[40:48], dtype=np.dtype(np.int32).newbyteorder(order))
    if mode == 0 and stamp == _IMOD_STAMP and not flags & _IMOD_SIGNED_BYTES:
        return np.dtype(np.uint8)
    return np.dtype(_DTYPES[mode]).newbyteorder(order)


def _write_slabs(file: BinaryIO, data: NDArray[Any]) -> tuple[float, float, float, float]:
    """Write the values little-endian; returns minimum, maximum, mean and deviation."""
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for _, slab in slabs(data):
        file.write(np.ascontiguousarray(slab, dtype=slab.dtype.newbyteorder("<")).data)
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        total += float(slab.sum(dtype=np.float64))
        squares += float(np.square(slab, dtype=np.float64).sum())
    mean = total / data.size
    return low, high, mean, float(np.sqrt(max(0.0, squares / data.size - mean**2)))


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
