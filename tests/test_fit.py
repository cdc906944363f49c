"""Fitting known structures to a map: a known pose is found, in the right hand, and what a map cannot tell is said."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.cli.app import main
from tomotif.core import InputError, Structure, Volume
from tomotif.core.geometry import angle_between, radius_grid
from tomotif.io.mrc import open_volume, write_volume
from tomotif.io.structure import load_structure
from tomotif.ops.density import structure_density
from tomotif.ops.fit import (
    Fit,
    default_plan,
    envelope,
    find_template,
    fit_map,
    judge,
    masked_correlation,
    mirrored,
    phase_randomised,
    radially_averaged,
    shell_amplitudes,
    solid_ball,
    with_spectrum_of,
)
from tomotif.ops.fourier import frequency_grid, low_pass
from tomotif.tasks.fit import Fits, FitSettings, as_cube, fit, placed_density

Map = NDArray[np.float32]

BOX, VOXEL, RESOLUTION = 24, 18.0, 45.0
TURN = Rotation.from_rotvec([0.7, -1.9, 0.4])
SHIFT = np.array([1.3, -2.1, 0.7])  # voxels zyx
FEW = FitSettings(rotations=720, controls=False)
PLAN = default_plan(BOX, 720)


@cache
def template(name: str, box: int = BOX, voxel_size: float = VOXEL) -> Map:
    return structure_density(
        load_structure(name), voxel_size=voxel_size, resolution=2 * voxel_size, shape=(box, box, box)
    )


def particle(
    name: str = "4v5d",
    turn: Rotation = TURN,
    shift: NDArray[np.float64] = SHIFT,
    *,
    box: int = BOX,
    voxel_size: float = VOXEL,
) -> Map:
    """The structure turned and shifted, rendered from its atoms."""
    return structure_density(
        load_structure(name),
        voxel_size=voxel_size,
        resolution=2 * voxel_size,
        shape=(box, box, box),
        rotation=turn,
        shift=shift * voxel_size,
    )


def noisy(volume: Map, resolution: float, seed: int = 0) -> Map:
    """The map in white noise that lets its FSC with the truth fall to 0.5 at the resolution: three times the signal."""
    radius = frequency_grid((BOX, BOX, BOX)) * BOX
    noise = np.random.default_rng(seed).standard_normal(volume.shape)
    signal, level = shell_amplitudes(volume, radius), shell_amplitudes(noise, radius)
    there = np.interp(BOX * VOXEL / resolution, np.arange(len(signal)), signal)
    return (volume + np.sqrt(3) * there / level[3:10].mean() * noise).astype(np.float32)


def fitted(volume: Map, known: Map, **options: Any) -> Fit:
    return fit_map(volume, known, VOXEL, **({"resolution": RESOLUTION, "plan": PLAN} | options))


def structures(*names: str) -> list[Structure]:
    return [load_structure(name) for name in names]


@pytest.mark.parametrize("seed", range(2))
def test_a_known_pose_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, shift = Rotation.random(random_state=seed), rng.uniform(-2.5, 2.5, 3)
    found = fitted(3 * particle(turn=turn, shift=shift) + 5, template("4v5d"))
    assert angle_between(found.rotation, turn)[0] < 0.2
    assert np.abs(found.shift_px - shift).max() < 0.01
    assert found.correlation > 0.999
    assert found.hand == "right"
    assert found.hand_margin > 0.1
    assert found.fsc05 == pytest.approx(2 * VOXEL)
    assert masked_correlation(found.placed, particle(turn=turn, shift=shift), found.mask) > 0.999


def test_the_hand_of_a_structure_that_is_nearly_its_own_mirror_image_is_left_open() -> None:
    found = fitted(noisy(particle("3j9i"), 50), template("3j9i"))
    assert masked_correlation(found.placed, particle("3j9i"), found.mask) > 0.95
    assert found.hand == "undecided"


@pytest.mark.parametrize("box", [24, 25])
def test_a_mirrored_map_says_so_and_its_pose_is_that_of_the_mirrored_template(box: int) -> None:
    volume = mirrored(particle(box=box))
    found = fitted(volume, template("4v5d", box))
    assert found.hand == "mirrored"
    assert found.mirror_correlation > 0.999
    assert found.score == found.mirror_correlation
    assert found.correlation < 0.95
    assert found.fsc05 < 2.1 * VOXEL
    again = fitted(volume, mirrored(template("4v5d", box)))
    assert again.hand == "right"
    assert angle_between(found.rotation, again.rotation)[0] < 0.3
    assert found.shift_px == pytest.approx(again.shift_px, abs=0.02)
    assert found.shift_px == pytest.approx(SHIFT * [-1, 1, 1], abs=0.02)


def test_the_contrast_transfer_of_a_map_is_given_to_the_template() -> None:
    k = frequency_grid((BOX, BOX, BOX), VOXEL)
    transfer = np.abs(np.sin(np.pi * 0.02 * 1.8e4 * k**2 + 0.1)) * np.exp(-((40 * k) ** 2))
    volume = np.fft.irfftn(np.fft.rfftn(particle()) * transfer, s=(BOX,) * 3, axes=(0, 1, 2)).astype(np.float32)
    matched, plain = (fitted(volume, template("4v5d"), match_spectrum=on) for on in (True, False))
    assert matched.correlation > 0.999
    assert plain.correlation < 0.98
    assert angle_between(matched.rotation, TURN)[0] < 1
    assert matched.fsc05 == pytest.approx(plain.fsc05, rel=0.1)


def test_the_template_gets_the_amplitudes_of_the_map_and_keeps_its_phases() -> None:
    volume, known = noisy(particle(), 60), template("4v5d")
    shaped = with_spectrum_of(volume, known)
    radius = frequency_grid(volume.shape) * BOX
    wanted, got = (shell_amplitudes(one, radius)[2 : BOX // 2] for one in (volume, shaped))
    assert got == pytest.approx(wanted, rel=0.15)
    phase = np.angle(np.fft.rfftn(shaped) * np.fft.rfftn(known).conj())
    assert np.abs(phase[(radius > 1) & (radius < BOX / 2)]).max() < 0.02


def test_noise_lowers_the_curve_and_nothing_lies_outside_its_limits() -> None:
    resolution = [fitted(noisy(particle(), at), template("4v5d")).fsc05 for at in (45, 80)]
    assert 2 * VOXEL <= resolution[0] < resolution[1] < 90
    noise = np.random.default_rng(0).standard_normal((BOX, BOX, BOX)).astype(np.float32)
    assert fitted(noise, template("4v5d")).fsc05 <= BOX * VOXEL


def test_a_small_structure_does_not_win_by_explaining_a_small_piece() -> None:
    volume = noisy(particle(), 190)
    how = {"resolution": RESOLUTION}
    found = {n: find_template(volume, template(n), VOXEL, name=n, plan=PLAN, **how) for n in ("4v5d", "3gl1")}
    alone = {name: judge(volume, one, VOXEL, **how).score for name, one in found.items()}
    joined = {n: judge(volume, one, VOXEL, region=found["4v5d"].support, **how).score for n, one in found.items()}
    assert alone["3gl1"] > alone["4v5d"]
    assert joined["3gl1"] < joined["4v5d"] - 0.05


def test_correlation_in_a_mask_is_that_of_its_voxels() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 8, 8, 8))
    mask = (radius_grid((8, 8, 8)) < 3).astype(np.float32)
    inside = mask > 0
    assert masked_correlation(a, b, mask) == pytest.approx(np.corrcoef(a[inside], b[inside])[0, 1])
    assert masked_correlation(a, -2 * a + 3, mask) == pytest.approx(-1)


def test_the_envelope_holds_the_structure_and_little_more() -> None:
    mask = envelope(template("4v5d"), VOXEL, RESOLUTION)
    structure = load_structure("4v5d").centred()
    at = np.rint(structure.positions / VOXEL).astype(int) + BOX // 2
    assert (mask[tuple(at.T)] > 0.5).mean() > 0.995
    molecule = structure.weights.sum() * 1.21e3 / 536 / VOXEL**3
    assert molecule < mask.sum() < 5 * molecule
    assert 0 <= mask.min() <= mask.max() == 1


def test_decoys_share_size_or_spectrum_and_nothing_else() -> None:
    known = template("4v5d")
    smooth = radially_averaged(known)
    radius = radius_grid(known.shape)
    for r in (3, 6, 9):
        assert np.ptp(smooth[np.isclose(radius, r)]) < 1e-6
    assert smooth.sum() == pytest.approx(known.sum(), rel=0.05)
    assert radially_averaged(smooth)[radius < 9] == pytest.approx(smooth[radius < 9], abs=0.05 * float(smooth.max()))
    assert solid_ball(5.0, BOX).sum() == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.03)
    rng = np.random.default_rng(0)
    random = phase_randomised(known, rng)
    assert np.abs(np.fft.rfftn(random)) == pytest.approx(np.abs(np.fft.rfftn(known)), rel=1e-3, abs=1e-3)
    assert abs(np.corrcoef(random.ravel(), known.ravel())[0, 1]) < 0.3
    support = envelope(known, VOXEL, RESOLUTION)
    assert not phase_randomised(known, rng, support)[support == 0].any()


def test_the_right_one_of_four_complexes_comes_first_and_controls_come_after() -> None:
    calls: list[tuple[int, int]] = []
    settings = FEW.model_copy(update={"controls": True})
    volume = Volume(noisy(particle(), 50), VOXEL)
    found = fit(volume, structures("1oel", "3j9i", "4v5d", "5tbz"), settings, progress=lambda *done: calls.append(done))
    assert found.best.name == "4v5d"
    assert [one.score for one in found.fits] == sorted((one.score for one in found.fits), reverse=True)
    margin = found.margin(0)
    assert margin is not None and margin > 0.15
    assert found.margin(3) is None
    assert angle_between(found.best.rotation, TURN)[0] < 4
    assert found.best.hand == "right"
    assert found.best.fsc05 < 55 < found.fits[1].fsc05
    assert {one.name for one in found.controls} == {"ball", "radial_average", "random_phases"}
    assert all(one.score < found.best.score - 0.1 for one in found.controls)
    assert found.findings()[0] == f"4v5d fits best: correlation {found.best.score:.3f}, {margin:.3f} above " + (
        f"{found.fits[1].name}."
    )
    assert len(found.findings()) == 2
    assert calls[0] == (1, 7) and calls[-1] == (7, 7)
    assert json.loads(json.dumps(found.as_dict()))["fits"][0]["structure"] == "4v5d"


@cache
def fits_of_a_radial_average() -> Fits:
    volume = radially_averaged(noisy(particle(shift=np.zeros(3)), 60))
    settings = FEW.model_copy(update={"controls": True})
    return fit(Volume(volume, VOXEL), structures("4v5d", "1oel", "4v8r"), settings)


def test_the_radial_average_of_a_map_tells_its_structure_from_no_other() -> None:
    found = fits_of_a_radial_average()
    margin = found.margin(0)
    assert margin is not None and margin < 0.05
    scores = {one.name: one.score for one in found.fits}
    assert scores["4v5d"] - max(score for name, score in scores.items() if name != "4v5d") < 0.02
    assert max(one.score for one in found.controls) > found.best.score - 0.02


def test_what_a_map_cannot_tell_is_said() -> None:
    lines = fits_of_a_radial_average().findings()
    assert any("from a ball of its size" in line and "tells" in line.replace("tell ", "tells ") for line in lines)
    assert any("hand is undecided" in line for line in lines)


def test_a_map_of_any_shape_and_origin_is_fitted_and_the_placed_structure_lies_on_its_grid() -> None:
    whole = particle(box=32, voxel_size=14.0, shift=np.array([-2.0, 1.0, 0.5]))
    volume = Volume(whole[2:31, 1:32, :], 14.0)  # its centre n // 2 is another voxel than that of the whole
    found = fit(volume, structures("4v5d"), FEW)
    offset = np.array([16 - (2 + 29 // 2), 16 - (1 + 31 // 2), 0])
    assert found.best.shift_px == pytest.approx(np.array([-2.0, 1.0, 0.5]) + offset, abs=0.05)
    placed = placed_density(load_structure("4v5d"), found.best, volume, found)
    assert placed.shape == volume.shape
    seen = low_pass(np.asarray(volume.data, np.float32), 14.0, found.resolution)
    assert np.corrcoef(placed.ravel(), seen.ravel())[0, 1] > 0.99


def test_a_mirrored_structure_is_placed_mirrored() -> None:
    volume = Volume(mirrored(particle()), VOXEL)
    found = fit(volume, structures("4v5d"), FEW)
    placed = placed_density(load_structure("4v5d"), found.best, volume, found)
    assert np.corrcoef(placed.ravel(), low_pass(volume.data, VOXEL, found.resolution).ravel())[0, 1] > 0.995
    assert "other hand" in found.findings()[1]


def test_a_finely_sampled_map_is_compared_on_a_coarser_grid() -> None:
    fine = particle(box=72, voxel_size=6.0, shift=np.array([3.0, -1.0, 2.0]))
    box, voxel_size = as_cube(Volume(fine, 6.0), 40.0)
    assert (box.shape, voxel_size) == ((64, 64, 64), 6.75)
    coarse = particle(box=64, voxel_size=6.75, shift=np.array([3.0, -1.0, 2.0]) / 1.125)
    seen, known = (low_pass(one, voxel_size, 40).ravel() for one in (box, coarse))
    assert np.corrcoef(seen, known)[0, 1] > 0.999
    assert seen == pytest.approx(known, abs=0.05 * float(known.max()))
    found = fit(Volume(fine, 6.0), structures("4v5d"), FEW)
    assert angle_between(found.best.rotation, TURN)[0] < 0.3
    assert found.best.shift_px * found.voxel_size == pytest.approx([18, -6, 12], abs=0.2)
    assert found.resolution == 40


def test_the_resolution_follows_the_voxels() -> None:
    volume = Volume(particle(), VOXEL)
    assert fit(volume, structures("4v5d"), FEW).resolution == 2.5 * VOXEL
    with pytest.raises(InputError, match=r"two voxels \(36 Å\), got 30 Å"):
        fit(volume, structures("4v5d"), FitSettings(resolution=30))
    with pytest.raises(InputError, match="3 × the resolution"):
        fit(volume, structures("4v5d"), FitSettings(resolution=200))


def test_a_shift_beyond_the_default_is_found_when_it_is_allowed() -> None:
    far = np.array([5.0, 0.0, -4.0])
    volume = Volume(particle("1oel", shift=far), VOXEL)
    found = fit(volume, structures("1oel"), FEW.model_copy(update={"max_shift": 6 * VOXEL}))
    assert found.best.shift_px == pytest.approx(far, abs=0.1)


def test_what_cannot_be_fitted_is_refused_or_skipped() -> None:
    small = Volume(particle("3j9i", shift=np.zeros(3), box=16, voxel_size=14.0), 14.0)
    found = fit(small, structures("4v5d", "3j9i"), FEW)
    assert ([one.name for one in found.fits], found.skipped) == (["3j9i"], ("4v5d",))
    with pytest.raises(InputError, match="radius 112 Å, got 4v5d"):
        fit(small, structures("4v5d"), FEW)
    with pytest.raises(InputError, match="'3j9i' twice"):
        fit(small, structures("3j9i", "3j9i"), FEW)
    with pytest.raises(InputError, match="at most 512 voxels wide"):
        fit(Volume(np.broadcast_to(np.float32(0), (600, 600, 600)), 10.0), structures("3j9i"), FEW)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def average(tmp_path: Path) -> Path:
    path = tmp_path / "average.mrc"
    write_volume(path, noisy(particle(), 60), VOXEL, origin=(10.0, 20.0, 30.0))
    return path


def test_the_command_writes_the_ranking_and_the_best_structure_and_does_it_once(
    average: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fits"
    arguments = ["fit", str(average), "1oel", "4V5D", "-o", str(out), "--rotations", "720"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "4v5d fits best: correlation" in printed
    assert all(word in printed for word in ("mirror", "above next", "control: random phases", "FSC 0.5 (Å)"))
    made = json.loads((out / "fits.json").read_text())
    assert [row["rank"] for row in made["fits"]] == [1, 2]
    best = made["fits"][0]
    assert (best["structure"], best["hand"], best["mirrored"]) == ("4v5d", "right", False)
    assert best["margin_to_next"] == pytest.approx(best["correlation"] - made["fits"][1]["correlation"], abs=0.05)
    assert len(best["fsc"]["frequency"]) == len(best["fsc"]["fsc"]) == BOX // 2 + 1
    turn = Rotation.from_matrix(best["rotation_zyx"])
    assert angle_between(turn, TURN)[0] < 4
    assert best["shift_zyx_A"] == pytest.approx(SHIFT * VOXEL, abs=4)
    assert len(made["controls"]) == 3
    with (out / "fits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["fit"] * 2 + ["control"] * 3
    assert (rows[0]["structure"], rows[0]["rank"]) == ("4v5d", "1")
    placed = open_volume(out / "best_fit.mrc")
    assert (placed.shape, placed.origin) == ((BOX,) * 3, (10.0, 20.0, 30.0))
    assert placed.voxel_size == pytest.approx(VOXEL)
    assert np.corrcoef(np.asarray(placed.data).ravel(), particle().ravel())[0, 1] > 0.95
    assert (out / "fit.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["results"]["best"]) == ("finished", "4v5d")

    written = (out / "fits.json").stat().st_mtime_ns
    main(arguments)
    assert (out / "fits.json").stat().st_mtime_ns == written
    with pytest.raises(SystemExit):
        main([*arguments, "--resolution", "60"])
    assert (out / "fits.json").stat().st_mtime_ns == written
    main([*arguments, "--resolution", "60", "--no-controls", "--overwrite"])
    assert (out / "fits.json").stat().st_mtime_ns > written
    assert json.loads((out / "fits.json").read_text())["controls"] == []


def test_without_names_the_whole_library_is_fitted(
    average: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tomotif.pipelines.stages.structure_names", lambda: ["1oel", "4v5d"])
    main(["fit", str(average), "-o", str(tmp_path / "fits"), "--no-controls", "--rotations", "576"])
    made = json.loads((tmp_path / "fits" / "fits.json").read_text())
    assert [row["structure"] for row in made["fits"]] == ["4v5d", "1oel"]


def test_a_dark_map_is_fitted_when_the_command_is_told(
    average: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(average, -np.asarray(open_volume(average).data), VOXEL)
    options = ["--no-controls", "--rotations", "576"]
    for contrast in ("bright", "dark"):
        main(["fit", str(average), "4v5d", "-o", str(tmp_path / contrast), "--contrast", contrast, *options])
    bright, dark = (json.loads((tmp_path / c / "fits.json").read_text())["fits"][0] for c in ("bright", "dark"))
    assert dark["correlation"] > 0.8 > bright["correlation"] + 0.3


def test_what_the_command_cannot_use_is_one_line_and_leaves_nothing(
    average: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = tmp_path / "unknown.mrc"
    unknown.write_bytes(average.read_bytes())
    with mrcfile.open(unknown, "r+") as file:
        file.voxel_size = 1.0
    constant = tmp_path / "constant.mrc"
    write_volume(constant, np.ones((BOX, BOX, BOX), np.float32), VOXEL)
    out = tmp_path / "out"
    for arguments, word in (
        ([tmp_path / "none.mrc", "4v5d"], "none.mrc"),
        ([unknown, "4v5d"], "--voxel-size"),
        ([average, "4v5e"], "did you mean '4v5d"),
        ([average, tmp_path / "mine.cif"], "mine.cif"),
        ([constant, "4v5d"], "every voxel"),
        ([average, "4v5d", "--resolution", "20"], "--resolution"),
        ([average, "4v5d", "--rotations", "1"], "--rotations"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["fit", *map(str, arguments), "-o", str(out)])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and word in message, message
        assert not out.exists()
    main(["fit", str(unknown), "4v5d", "-o", str(out), "--voxel-size", "18", "--no-controls", "--rotations", "576"])
    assert json.loads((out / "fits.json").read_text())["voxel_size_A"] == 18
