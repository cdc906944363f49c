"""Star files: real ones of every RELION, angles and axes proved on their definition, and what must survive."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomotif.core import InputError, MissingWedge, OutputError, Particles, Tomogram, Volume
from tomotif.core.geometry import angle_between, random_rotations
from tomotif.io.euler import from_relion, reverse_axes, to_relion
from tomotif.io.mrc import write_volume
from tomotif.io.star import (
    _name,
    label_of,
    read_blocks,
    read_particles,
    read_tomograms,
    tilt_ranges,
    tomogram_frames,
    write_particles,
    write_tomograms,
)

STAR = Path(__file__).parent / "data" / "star"
X, Y, Z = np.eye(3)[::-1]  # unit vectors of the axes, as zyx
degrees = st.floats(-180, 180, allow_nan=False)
angle_triples = st.tuples(degrees, st.floats(0, 180), degrees)
gimbal_triples = st.tuples(degrees, st.sampled_from([0.0, 1e-9, 1e-5, 180.0 - 1e-5, 180.0]), degrees)


def about(axis: str, angle: float) -> np.ndarray:
    """Right-handed rotation of xyz vectors, written out."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    if axis == "z":
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def relion_matrix(rot: float, tilt: float, psi: float) -> np.ndarray:
    """RELION's A of xyz vectors, as its documents define it: axes turned by rot about z, tilt about y, psi about z."""
    return np.linalg.inv(about("z", rot) @ about("y", tilt) @ about("z", psi))


def tomogram(name: str, shape=(200, 400, 400), voxel_size=10.0, path=None) -> Tomogram:
    return Tomogram(Volume(np.broadcast_to(np.float32(0), shape), voxel_size), name, path=path)


class TestEuler:
    def test_identity(self):
        assert from_relion([[0, 0, 0]]).magnitude()[0] == 0
        np.testing.assert_allclose(to_relion(Rotation.identity(3)), np.zeros((3, 3)))

    @pytest.mark.parametrize(
        ("angles", "vector", "goes_to"),
        [
            ((90, 0, 0), X, -Y),  # rot turns the reference by -90° about z, right-handed: x to -y, y to x
            ((90, 0, 0), Y, X),
            ((90, 0, 0), Z, Z),
            ((0, 90, 0), Z, -X),  # tilt turns it by -90° about y: z to -x, x to z
            ((0, 90, 0), X, Z),
            ((0, 90, 0), Y, Y),
            ((0, 0, 90), X, -Y),  # psi alone is as rot alone
            ((90, 90, 0), X, -Y),  # first -rot about z, x to -y; then -tilt about y leaves -y
            ((0, 90, 90), X, Z),  # first -tilt about y, x to z; then -psi about z leaves z
        ],
    )
    def test_single_axes_turn_the_reference_this_way(self, angles, vector, goes_to):
        np.testing.assert_allclose(from_relion([angles])[0].apply(vector), goes_to, atol=1e-12)

    @given(angle_triples, st.tuples(*[st.floats(-100, 100)] * 3))
    def test_acts_on_zyx_as_the_documented_matrix_acts_on_xyz(self, angles, xyz):
        expected = relion_matrix(*angles) @ np.array(xyz)
        np.testing.assert_allclose(from_relion([angles])[0].apply(xyz[::-1])[::-1], expected, atol=1e-9)

    @given(angle_triples, angle_triples)
    def test_composition_is_the_product_of_matrices(self, first, second):
        both = (from_relion([first]) * from_relion([second]))[0].as_matrix()[::-1, ::-1]
        np.testing.assert_allclose(both, relion_matrix(*first) @ relion_matrix(*second), atol=1e-12)

    @given(st.lists(st.one_of(angle_triples, gimbal_triples), min_size=1, max_size=8))
    def test_round_trip_gives_the_same_rotation(self, angles):
        turned = from_relion(angles)
        back = to_relion(turned)
        assert angle_between(from_relion(back), turned).max() < 1e-5
        assert np.all((back[:, 1] >= 0) & (back[:, 1] <= 180))

    @given(st.tuples(st.floats(-179, 179), st.floats(1, 179), st.floats(-179, 179)))
    def test_round_trip_gives_the_same_angles_away_from_the_poles(self, angles):
        np.testing.assert_allclose(to_relion(from_relion([angles]))[0], angles, atol=1e-6)

    def test_reversing_axes_twice_is_nothing_and_keeps_the_angle(self):
        rotations = random_rotations(50, np.random.default_rng(0))
        assert angle_between(reverse_axes(reverse_axes(rotations)), rotations).max() < 1e-6
        np.testing.assert_allclose(reverse_axes(rotations).magnitude(), rotations.magnitude())
        vectors = np.random.default_rng(1).normal(size=(50, 3))
        np.testing.assert_allclose(reverse_axes(rotations).apply(vectors[:, ::-1])[:, ::-1], rotations.apply(vectors))

    def test_none_at_all(self):
        assert to_relion(from_relion(np.zeros((0, 3)))).shape == (0, 3)


class TestReadRelion:
    """First rows of real files, with the arithmetic written out."""

    def test_3_0(self):
        particles = read_particles(STAR / "relion_3.0.star")
        assert len(particles) == 3
        assert particles.tomogram[0] == "01006_10.73Apx"
        # detector 5.364 µm at magnification 10,000 and rlnPixelSize agree: 5.364 Å
        np.testing.assert_allclose(particles.position[0], 5.364 * np.array([422.955, 733.955, 1028.455]))
        matrix = relion_matrix(-60.199770, 120.999041, 86.088799)
        np.testing.assert_allclose(particles.orientation[0].as_matrix()[::-1, ::-1], matrix, atol=1e-12)
        assert particles["rlnCtfImage"][1] == "../warp/mrc/subtomo/01006/01006_0000001_ctf_5.36A.mrc"

    def test_3_0_by_detector_and_magnification_with_origin_in_pixels(self, tmp_path):
        labels = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnOriginX"]
        labels += ["rlnOriginY", "rlnOriginZ", "rlnMagnification", "rlnDetectorPixelSize"]
        rows = "a/b/ts_3.rec 100 200 300 1 -2 3 10000 4.0"
        path = write_star(tmp_path / "p.star", {"": (labels, rows)})
        particles = read_particles(path)
        assert particles.tomogram.tolist() == ["ts_3"]
        np.testing.assert_allclose(particles.position, [[4 * 297, 4 * 202, 4 * 99]])

    @pytest.mark.parametrize("name", ["relion_3.1_optics", "relion_3.1_optics2"])
    def test_3_1(self, name):
        particles = read_particles(STAR / f"{name}.star")
        pixel = 2.446
        expected = [938.008 * pixel - 7.24711, 1480.63 * pixel + 2.69889, 915.549 * pixel + 0.25289]
        np.testing.assert_allclose(particles.position[0], expected)
        assert particles["optics.rlnVoltage"].tolist() == ["300.000000"] * 3

    def test_3_1_pixel_size_of_each_particle(self):
        particles = read_particles(STAR / "relion_3.1_optics2.star")
        np.testing.assert_allclose(particles.position[1, 0], 835.438 * 3.446 - 2.747110)
        assert particles["optics.rlnOpticsGroupName"].tolist() == ["opticsGroup1", "opticsGroup2", "opticsGroup2"]

    def test_3_1_optics_pixel_size_when_particles_have_none(self, tmp_path):
        path = tmp_path / "p.star"
        path.write_text((STAR / "relion_3.1_optics2.star").read_text().replace("_rlnPixelSize", "_rlnOther"))
        np.testing.assert_allclose(
            read_particles(path).position, read_particles(STAR / "relion_3.1_optics2.star").position
        )

    def test_4_counts_unbinned_pixels_and_shifts_in_angstrom(self):
        particles = read_particles(STAR / "relion_4.0.star")
        assert len(particles) == 45
        expected = np.array([944 * 1.971 - 3.783296, 428 * 1.971 - 2.364176, 1700 * 1.971 - 1.260416])
        np.testing.assert_allclose(particles.position[0], expected)
        assert set(particles.tomogram) == {"TS_017"}

    def test_5_composes_subtomogram_and_particle(self):
        tomograms = [tomogram(name, (200, 400, 400), 10.8) for name in ("TS_01", "TS_02")]
        particles = read_particles(STAR / "relion_5_class3d.star", tomograms=tomograms)
        assert len(particles) == 10
        subtomogram = relion_matrix(174.931305, 90.261512, -129.54646)
        within = relion_matrix(27.128677, 92.568990, 6.654494)
        origin = subtomogram @ [-3.75772, 4.342283, -3.75772]
        centre = np.array([400, 400, 200]) * 10.8 / 2
        expected = centre + np.array([754.828605, -879.58025, 138.065739]) - origin
        np.testing.assert_allclose(particles.position[0][::-1], expected)
        matrix = particles.orientation[0].as_matrix()[::-1, ::-1]
        np.testing.assert_allclose(matrix, subtomogram @ within, atol=1e-12)

    def test_5_other_centre(self):
        tomograms = [tomogram(name, (200, 400, 400), 10.8) for name in ("TS_01", "TS_02")]
        usual = read_particles(STAR / "relion_5_class3d.star", tomograms=tomograms)
        other = read_particles(STAR / "relion_5_class3d.star", tomograms=tomograms, half_minus_one=True)
        np.testing.assert_allclose(usual.position - other.position, 10.8)

    def test_5_size_from_relions_own_tomogram_table(self, tmp_path):
        labels = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")]
        path = write_star(tmp_path / "particles.star", {"particles": (labels, "tomo200528_101 10 -20 30")})
        (tmp_path / "tomograms.star").write_text((STAR / "relion_5_tomograms.star").read_text())
        particles = read_particles(path)
        np.testing.assert_allclose(particles.position, [[1000 * 1.724 + 30, 2000 * 1.724 - 20, 2000 * 1.724 + 10]])
        half = read_particles(path, half_minus_one=True)
        np.testing.assert_allclose(particles.position - half.position, 1.724)

    def test_5_given_tomogram_wins_over_the_table(self, tmp_path):
        labels = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")]
        path = write_star(tmp_path / "particles.star", {"particles": (labels, "tomo200528_101 10 -20 30")})
        (tmp_path / "tomograms.star").write_text((STAR / "relion_5_tomograms.star").read_text())
        particles = read_particles(path, tomograms=[tomogram("tomo200528_101", (2, 4, 6), 100.0)])
        np.testing.assert_allclose(particles.position, [[130, 180, 310]])

    def test_warp_counts_pixels_of_the_exported_images(self):
        particles = read_particles(STAR / "warp_2d.star", pixel_size=12.0)
        assert set(particles.tomogram) == {"Unt_083.tomostar", "Unt_050.tomostar"}
        np.testing.assert_allclose(particles.position[0], [12 * 28.146, 12 * 564.065, 12 * 494.521])
        assert particles["general.rlnTomoSubTomosAre2DStacks"].unique().tolist() == ["1"]
        # as RELION would read it
        np.testing.assert_allclose(read_particles(STAR / "warp_2d.star").position * 12 / 1.667, particles.position)

    def test_a_bare_table_counts_voxels_of_its_tomograms(self, tmp_path):
        labels = ["rlnTomoName", *(f"rlnCoordinate{a}" for a in "XYZ")]
        path = write_star(tmp_path / "p.star", {"": (labels, "050 1 2 3")})
        particles = read_particles(path, tomograms=[tomogram("050", voxel_size=7.0)])
        assert particles.tomogram.tolist() == ["050"]
        np.testing.assert_allclose(particles.position, [[21, 14, 7]])


ROUND_TRIPS = ["relion_3.0", "relion_3.1_optics", "relion_3.1_optics2", "relion_4.0", "relion_5_class3d", "warp_2d"]


class TestRoundTrip:
    @staticmethod
    def tomograms_of(path: Path) -> list[Tomogram]:
        block = next(b for b in read_blocks(path).values() if isinstance(b, pd.DataFrame) and "rlnAngleRot" in b)
        names = (
            block["rlnTomoName"] if "rlnTomoName" in block else block["rlnMicrographName"].map(lambda n: Path(n).stem)
        )
        return [tomogram(name, (1000, 4000, 4000), 1.9) for name in set(names)]

    @pytest.mark.parametrize("style", ["relion5", "relion3.1"])
    @pytest.mark.parametrize("name", ROUND_TRIPS)
    def test_real_files_keep_pose_and_every_other_column(self, tmp_path, name, style):
        tomograms = self.tomograms_of(STAR / f"{name}.star")
        first = read_particles(STAR / f"{name}.star", tomograms=tomograms)
        write_particles(tmp_path / "p.star", first, tomograms=tomograms, style=style)
        back = read_particles(tmp_path / "p.star", tomograms=tomograms)
        np.testing.assert_allclose(back.position, first.position, atol=2e-5)
        assert angle_between(back.orientation, first.orientation).max() < 1e-5
        assert back.tomogram.tolist() == first.tomogram.tolist()
        turned = [c for c in first.columns if "Origin" in c or "Subtomogram" in c or "Prior" in c]
        kept = first.columns.columns.difference(turned if style == "relion3.1" else [])
        pd.testing.assert_frame_equal(back.columns[kept], first.columns[kept])

    def test_relion_5_comes_back_as_it_was(self, tmp_path):
        source = STAR / "relion_5_class3d.star"
        tomograms = self.tomograms_of(source)
        write_particles(tmp_path / "p.star", read_particles(source, tomograms=tomograms), tomograms=tomograms)
        before, after = read_blocks(source), read_blocks(tmp_path / "p.star")
        assert after["general"] == before["general"]
        shared = before["optics"].columns
        pd.testing.assert_frame_equal(after["optics"][shared], before["optics"])
        assert set(before["particles"].columns) == set(after["particles"].columns)
        for label in before["particles"]:
            one, two = before["particles"][label], after["particles"][label]
            if label.startswith(("rlnAngle", "rlnCentered")) and "Prior" not in label:
                np.testing.assert_allclose(two.astype(float), one.astype(float), atol=2e-6)
            else:
                assert two.tolist() == one.tolist(), label

    def test_relion_3_1_has_one_rotation_and_the_whole_shift(self, tmp_path):
        source = STAR / "relion_5_class3d.star"
        tomograms = self.tomograms_of(source)
        first = read_particles(source, tomograms=tomograms)
        write_particles(tmp_path / "p.star", first, tomograms=tomograms, style="relion3.1")
        table = read_blocks(tmp_path / "p.star")["particles"]
        assert not [c for c in table if "Subtomogram" in c or "Prior" in c]
        subtomogram = relion_matrix(174.931305, 90.261512, -129.54646)
        shift = table[[f"rlnOrigin{a}Angst" for a in "XYZ"]].astype(float).to_numpy()[0]
        np.testing.assert_allclose(shift, subtomogram @ [-3.75772, 4.342283, -3.75772], atol=1e-6)

    def test_our_columns_types_and_features(self, tmp_path):
        rng = np.random.default_rng(3)
        columns = {
            "class": ["70S ribosome", "10", "2"],
            "score": [0.1, np.nan, 1 / 3],
            "radius": np.array([0.1, 2, 3], np.float32),
            "cluster": [3, -1, 2],
            "mass_kda": [1.0, 2.0, 3.5],
            "kept": [True, False, True],
            "rlnCtfMaxResolution": ["7.60", "007", ""],
            "optics.rlnVoltage": ["300", "200", "300"],
        }
        particles = Particles.create(["050", "data_01", "050"], rng.uniform(0, 900, (3, 3)), columns=columns)
        features = rng.normal(size=(3, 4)).astype(np.float32)
        particles = replace(particles, features=features, feature_names=("a", "b", "c", "d"))
        tomograms = [tomogram("050"), tomogram("data_01", voxel_size=20.0)]
        write_particles(tmp_path / "p.star", particles, tomograms=tomograms)
        back = read_particles(tmp_path / "p.star", tomograms=tomograms)
        assert back.tomogram.tolist() == ["050", "data_01", "050"]
        for name in ("class", "rlnCtfMaxResolution", "optics.rlnVoltage"):
            assert back[name].tolist() == columns[name]
        for name in ("score", "cluster", "mass_kda"):
            np.testing.assert_array_equal(back[name], columns[name])
        np.testing.assert_array_equal(back["radius"].to_numpy(np.float32), columns["radius"])
        assert back["kept"].tolist() == [1, 0, 1]
        assert back["rlnClassNumber"].tolist() == ["3", "1", "2"]  # in the order 10, 2, 70S ribosome
        assert back["rlnOpticsGroup"].tolist() == ["1", "2", "1"]
        np.testing.assert_array_equal(back.features, features)
        assert back.feature_names == ("a", "b", "c", "d")
        assert (tmp_path / "p_features.npy").is_file()

    def test_same_particles_same_bytes(self, tmp_path):
        particles = Particles.create("050", [[1, 2, 3]], columns={"class": ["a"]})
        for name in ("a.star", "b.star"):
            write_particles(tmp_path / name, particles, tomograms=[tomogram("050")])
        assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()
        assert (tmp_path / "a.star").read_text().startswith("# Written by tomotif\n\ndata_optics\n")  # no date

    def test_no_particles(self, tmp_path):
        write_particles(tmp_path / "p.star", Particles.create("050", []), tomograms=[tomogram("050")])
        assert len(read_particles(tmp_path / "p.star", tomograms=[])) == 0

    def test_joined_files_get_new_optics_groups(self, tmp_path):
        tomograms = [*self.tomograms_of(STAR / "relion_4.0.star"), *self.tomograms_of(STAR / "relion_3.1_optics.star")]
        parts = [read_particles(STAR / f"{name}.star").take([0, 1]) for name in ("relion_4.0", "relion_3.1_optics")]
        picks = Particles.create(tomograms[0].name, [[1, 2, 3]], columns={"score": [1.0]})
        joined = Particles.concat([*parts, picks])
        write_particles(tmp_path / "p.star", joined, tomograms=tomograms)
        back = read_particles(tmp_path / "p.star", tomograms=tomograms)
        np.testing.assert_allclose(back.position, joined.position, atol=2e-5)
        assert back["rlnOpticsGroup"].tolist() == ["1", "1", "2", "2", "3"]
        assert back["optics.rlnImageSize"].tolist() == ["64", "64", "168", "168", ""]
        assert back["optics.rlnTomoTiltSeriesPixelSize"].tolist() == ["1.971000", "1.971000", "1.9", "1.9", "1.9"]

    @given(st.from_regex(r"\A[a-z][a-z0-9_]{0,12}\Z"))
    def test_every_plain_name_comes_back_from_its_label(self, name):
        assert label_of(name).startswith(("tomotif", "rln"))
        assert _name(label_of(name)) == name

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.tuples(*[st.floats(-1e4, 1e4)] * 3),
                st.one_of(angle_triples, gimbal_triples),
                st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="'\"#")),
                st.floats(allow_nan=False, allow_infinity=False),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def test_anything_comes_back(self, tmp_path_factory, rows):
        position, angles, text, numbers = (list(column) for column in zip(*rows, strict=True))
        columns = {"class": text, "rlnOther": [f"{t} {t}" for t in text], "probability": numbers}
        particles = Particles.create("050", position, from_relion(angles), columns)
        path = tmp_path_factory.mktemp("any") / "p.star"
        write_particles(path, particles, tomograms=[tomogram("050")])
        back = read_particles(path, tomograms=[tomogram("050")])
        np.testing.assert_allclose(back.position, particles.position, atol=1e-6)
        assert angle_between(back.orientation, particles.orientation).max() < 1e-5
        assert back["class"].tolist() == text
        assert back["rlnOther"].tolist() == columns["rlnOther"]
        assert back["probability"].tolist() == numbers

    def test_a_hundred_thousand_particles_take_seconds(self, tmp_path):
        count, rng = 100_000, np.random.default_rng(0)
        columns = {"class": rng.choice(["a", "b"], count), "score": rng.normal(size=count), "radius": np.ones(count)}
        particles = Particles.create("050", rng.uniform(0, 1e4, (count, 3)), random_rotations(count, rng), columns)
        start = time.process_time()
        write_particles(tmp_path / "p.star", particles, tomograms=[tomogram("050")])
        back = read_particles(tmp_path / "p.star", tomograms=[tomogram("050")])
        assert time.process_time() - start < 10
        np.testing.assert_allclose(back.position, particles.position, atol=1e-6)


class TestTomograms:
    @pytest.fixture
    def series(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "run").mkdir()
        rng = np.random.default_rng(0)
        made = []
        for name, wedge, contrast in (
            ("050", MissingWedge(-51, 63, "x"), "bright"),
            ("data 1", MissingWedge(), "dark"),
        ):
            path = tmp_path / "data" / f"{name}.mrc"
            write_volume(path, rng.normal(size=(4, 5, 6)).astype(np.float32), 13.48)
            made.append(Tomogram(Volume(np.ones((4, 5, 6)), 13.48), name, wedge, contrast, path))
        write_tomograms(tmp_path / "run" / "tomograms.star", made)
        return tmp_path, made

    def test_round_trip(self, series):
        folder, made = series
        back = read_tomograms(folder / "run" / "tomograms.star")
        for one, two in zip(back, made, strict=True):
            assert (one.name, one.missing_wedge, one.contrast) == (two.name, two.missing_wedge, two.contrast)
            assert (one.shape, one.voxel_size, one.path) == (two.shape, 13.48, two.path)
        assert "../data/050.mrc" in (folder / "run" / "tomograms.star").read_text()

    def test_sizes_and_ranges_need_no_volume(self, series):
        folder, made = series
        (folder / "data" / "050.mrc").unlink()
        frames = tomogram_frames(folder / "run" / "tomograms.star")
        np.testing.assert_allclose(frames["050"].extent, [6 * 13.48, 5 * 13.48, 4 * 13.48])
        assert tilt_ranges(folder / "run" / "tomograms.star")["050"] == made[0].missing_wedge
        with pytest.raises(InputError, match=r"expected the tomogram \.\./data/050\.mrc named in .* no such file"):
            read_tomograms(folder / "run" / "tomograms.star")

    def test_relions_own_table_with_its_tilt_series(self, tmp_path):
        """The project folder is two above the table, the tilt range in the file of the tilt series."""
        job = tmp_path / "Tomograms" / "job009"
        (job / "tilt_series").mkdir(parents=True)
        (job / "tomograms").mkdir()
        lines = (STAR / "relion_5_tomograms.star").read_text().splitlines()
        keep = [line for line in lines if not line.startswith("tomo200528_1") or line.startswith("tomo200528_107")]
        (job / "tomograms.star").write_text("\n".join(keep) + "\n")
        write_star(job / "tilt_series" / "tomo200528_107.star", {"tomo": (["rlnTomoYTilt"], "-48.5\n0.1\n51.25")})
        values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
        write_volume(job / "tomograms" / "rec_tomo200528_107.mrc", values, 14.0)
        (read,) = read_tomograms(job / "tomograms.star", contrast="bright")
        assert read.name == "tomo200528_107"
        assert read.voxel_size == pytest.approx(1.724 * 8.120650)
        assert (read.missing_wedge, read.contrast) == (MissingWedge(-48.5, 51.25), "bright")
        frame = tomogram_frames(job / "tomograms.star")["tomo200528_107"]
        np.testing.assert_allclose(frame.extent, 1.724 * np.array([4000, 4000, 2000]))

    def test_a_tomogram_without_a_file(self, tmp_path):
        with pytest.raises(InputError, match="expected a tomogram that lies in a file, but '050' does not"):
            write_tomograms(tmp_path / "t.star", [tomogram("050")])

    @pytest.mark.parametrize(
        ("label", "value", "message"),
        [
            ("tomotifContrast", "blue", "expected contrast 'dark' or 'bright', got 'blue'"),
            ("tomotifTiltMin", "low", "expected a number for tomotifTiltMin .* got 'low' in row 1"),
            ("rlnTomoTiltSeriesPixelSize", "0", "expected a voxel size above 0"),
        ],
    )
    def test_bad_values(self, series, label, value, message):
        folder, _ = series
        path = folder / "run" / "tomograms.star"
        blocks = read_blocks(path)["global"].assign(**{label: value})
        rows = (" ".join(row).replace("data 1", "d") for row in blocks.itertuples(index=False))
        write_star(path, {"": (list(blocks), "\n".join(rows))})
        with pytest.raises(InputError, match=message):
            read_tomograms(path)


class TestBadInput:
    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.star does not exist"):
            read_particles(tmp_path / "none.star")

    @pytest.mark.parametrize(
        "content", [b"", b"hello\n", b"\xff\xfe\x00_a\n", b"data_\n\nloop_\n_a #1\n_b #2\n1 2 3\n4\n"]
    )
    def test_not_a_star_file(self, tmp_path, content):
        (tmp_path / "p.star").write_bytes(content)
        with pytest.raises(InputError, match="expected"):
            read_particles(tmp_path / "p.star")

    def test_columns_missing(self):
        message = read_error(STAR / "relion_5_tomograms.star")
        assert "expected the columns rlnCenteredCoordinateXAngst" in message
        assert "rlnCoordinateZ in" in message
        assert "but it has rlnTomoName, rlnVoltage" in message

    def test_tomogram_name_missing(self, tmp_path):
        path = write_star(tmp_path / "p.star", {"": ([f"rlnCoordinate{a}" for a in "XYZ"], "1 2 3")})
        assert "expected the columns rlnTomoName or rlnMicrographName" in read_error(path)

    def test_pixel_size_missing(self, tmp_path):
        labels = ["rlnTomoName", *(f"rlnCoordinate{a}" for a in "XYZ")]
        path = write_star(tmp_path / "p.star", {"": (labels, "050 1 2 3")})
        assert "rlnTomoTiltSeriesPixelSize, rlnMicrographPixelSize" in read_error(path)
        assert "give the pixel size" in read_error(path)

    def test_centred_needs_the_tomogram(self):
        message = read_error(STAR / "relion_5_class3d.star")
        assert "expected the size of tomogram 'TS_01'" in message
        assert "the tomograms given (none)" in message

    def test_a_value_that_is_no_number(self, tmp_path):
        text = (STAR / "relion_4.0.star").read_text().replace("1700.000000", "17oo")
        (tmp_path / "p.star").write_text(text)
        assert "expected a number for rlnCoordinateX" in read_error(tmp_path / "p.star")
        assert "got '17oo' in row 1" in read_error(tmp_path / "p.star")

    def test_not_a_number_is_no_coordinate(self, tmp_path):
        text = (STAR / "relion_4.0.star").read_text().replace("1700.000000", "nan")
        (tmp_path / "p.star").write_text(text)
        assert "expected a number for rlnCoordinateX" in read_error(tmp_path / "p.star")

    def test_optics_group_missing(self, tmp_path):
        text = (STAR / "relion_3.1_optics2.star").read_text().replace("\t\t   2 opticsGroup2", "\t\t   3 opticsGroup3")
        (tmp_path / "p.star").write_text(text)
        assert "expected optics group 2 in the optics table" in read_error(tmp_path / "p.star")

    def test_features_missing_or_of_others(self, tmp_path):
        particles = replace(Particles.create("050", [[1, 2, 3]]), features=np.ones((1, 2), np.float32))
        write_particles(tmp_path / "p.star", particles, tomograms=[tomogram("050")])
        np.save(tmp_path / "p_features.npy", np.ones((3, 2), np.float32))
        assert "expected 1 feature vectors" in read_error(tmp_path / "p.star", tomograms=[tomogram("050")])
        (tmp_path / "p_features.npy").write_text("no")
        assert "expected features as a .npy array" in read_error(tmp_path / "p.star", tomograms=[tomogram("050")])
        (tmp_path / "p_features.npy").unlink()
        assert "does not exist" in read_error(tmp_path / "p.star", tomograms=[tomogram("050")])

    def test_writing_needs_the_tomogram(self, tmp_path):
        with pytest.raises(InputError, match=r"size of tomogram 'b', .* not among \['a'\]"):
            write_particles(tmp_path / "p.star", Particles.create("b", [[1, 2, 3]]), tomograms=[tomogram("a")])
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", ["it's", 'a"b', "a#b", "a\tb", "a\nb"])
    def test_text_that_a_star_file_cannot_hold(self, tmp_path, text):
        particles = Particles.create("a", [[1, 2, 3]], columns={"class": [text]})
        with pytest.raises(InputError, match="expected text without quotes, # and tabs for tomotifClass"):
            write_particles(tmp_path / "p.star", particles, tomograms=[tomogram("a")])
        assert not list(tmp_path.iterdir())

    def test_folder_missing(self, tmp_path):
        with pytest.raises(OutputError, match="create it first"):
            write_particles(tmp_path / "no" / "p.star", Particles.create("a", [[1, 2, 3]]), tomograms=[tomogram("a")])


def test_a_failed_read_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "p.star"
    path.write_text("data_\n\nloop_\n_rlnTomoName #1\n_b #2\n1 2 3\n4\n")
    read_error(path)
    labels = ["rlnTomoName", "rlnPixelSize", *(f"rlnCoordinate{a}" for a in "XYZ")]
    write_star(path, {"": (labels, "050 2 1 2 3")})
    np.testing.assert_allclose(read_particles(path).position, [[6, 4, 2]])


def write_star(path: Path, blocks: dict[str, tuple[list[str], str]]) -> Path:
    """A star file as other programs write it."""
    lines = []
    for name, (labels, rows) in blocks.items():
        lines += [f"data_{name}", "", "loop_", *(f"_{label} #{i}" for i, label in enumerate(labels, 1)), rows, ""]
    path.write_text("\n".join(lines))
    return path


def read_error(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as error:
        read_particles(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
