"""The autoencoder: its literal size, what it learns of two shapes without labels, one scale, resume, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from tests.conftest import shell_stack
from tomotif.core import InputError, Particles, Subtomograms, UnknownNameError
from tomotif.data.batches import BoxBatches, EpochBatches, loader
from tomotif.engine.model_folder import load_model, read_card
from tomotif.engine.predict import openvino_graph
from tomotif.io.environment import peak_memory
from tomotif.models import architecture_names, build_model
from tomotif.models.autoencoder3d import Autoencoder, build_autoencoder
from tomotif.models.size import model_size
from tomotif.tasks.autoencode import (
    AutoencoderCard,
    AutoencoderSettings,
    CodeClusterSettings,
    EncodeSettings,
    Reconstruction,
    check_pictures,
    cluster_codes,
    decode,
    encode,
    find_patterns,
    load_autoencoder,
    read_autoencoder_card,
    to_one_scale,
    tomogram_scales,
    train_autoencoder,
)

SETTINGS = AutoencoderSettings(epochs=12, batch_size=8, device="cpu")
BOX = 12


def two_shapes(count: int, seed: int = 0, noise: float = 0.3, box_px: int = BOX) -> Subtomograms:
    """Balls and shells in four tomograms, as an extraction gives them."""
    stack = shell_stack(count, box_px, noise, seed)
    rng = np.random.default_rng(seed)
    return replace(
        stack,
        particles=stack.particles.with_columns(mean=rng.normal(7, 0.1, count), deviation=rng.normal(2, 0.05, count)),
    )


@pytest.fixture(scope="module")
def boxes() -> Subtomograms:
    return two_shapes(96)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, boxes: Subtomograms) -> tuple[Path, AutoencoderCard]:
    folder = tmp_path_factory.mktemp("train")
    card = train_autoencoder(boxes, SETTINGS, folder, progress=False)
    return folder / "model", card


# ------------------------------------------------------------------------------------------------ the network


def test_the_published_network_has_its_published_size() -> None:
    size = model_size("autoencoder3d", 32, 32, "autoencoder")
    assert size.parameters == 1_149_793
    assert size.multiply_adds == pytest.approx(1.19e9, rel=0.02)
    assert size.receptive_field_px == 10  # of the encoder: two convolutions, two poolings


def test_an_autoencoder_is_no_classifier() -> None:
    assert "autoencoder3d" not in architecture_names()
    assert architecture_names("autoencoder") == ["autoencoder3d"]
    with pytest.raises(UnknownNameError):
        build_model("autoencoder3d", 32, 10)
    with pytest.raises(UnknownNameError, match="did you mean 'autoencoder3d'"):
        build_autoencoder("autoencoder", 32, 10)
    with pytest.raises(InputError, match="multiple of 4 voxels, got 18"):
        build_autoencoder("autoencoder3d", 18, 10)


def test_forward_is_decode_after_encode_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    model = build_autoencoder("autoencoder3d", 8, 5)
    x = torch.randn(3, 1, 8, 8, 8)
    codes = model.encode(x)
    assert codes.shape == (3, 5) and (codes >= 0).all()
    assert torch.equal(model(x), model.decode(codes)) and model(x).shape == x.shape
    model(x).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_openvino_gives_what_torch_gives() -> None:
    import openvino

    torch.manual_seed(0)
    model = build_autoencoder("autoencoder3d", 16, 8).eval()
    x = torch.randn(2, 1, 16, 16, 16)
    compiled = openvino.compile_model(openvino_graph(model, tuple(x.shape)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([x.numpy()])[0], model(x).detach().numpy(), atol=1e-4)


# ------------------------------------------------------------------------------------------------ training


def test_it_tells_two_shapes_apart_and_draws_them(trained: tuple[Path, AutoencoderCard], tmp_path: Path) -> None:
    model, card = trained
    unseen = two_shapes(80, seed=9)
    named, pictures = find_patterns(unseen, model, CodeClusterSettings(patterns=2), tmp_path)
    assert adjusted_rand_score(unseen.particles["class"], named["pattern"]) > 0.9
    assert set(named["pattern"]) == {1, 2} and (named["pattern_distance"] >= 0).all()
    assert (named["pattern"] == 1).sum() >= 40  # the largest first
    assert named.features is not None and named.features.shape == (80, 32)
    assert named.feature_names[:2] == ("code0", "code1")
    assert pictures.shape == (2, BOX, BOX, BOX)
    for number, picture in enumerate(pictures, start=1):
        of_pattern = unseen.particles["class"][named["pattern"] == number].mode()[0]
        clean = two_shapes(40, seed=1, noise=0.01)
        truth = clean.boxes(np.flatnonzero(clean.particles["class"] == of_pattern))[0]
        assert np.corrcoef(picture.ravel(), truth.ravel())[0, 1] > 0.9  # a box has 0.7
    assert card.scores["picture_variation"] > 0.02 and card.scores["live_codes"] >= 2


def test_the_card_says_what_was_learned(trained: tuple[Path, AutoencoderCard], boxes: Subtomograms) -> None:
    model, card = trained
    assert card == read_autoencoder_card(model)
    assert (card.architecture, card.box_px, card.codes) == ("autoencoder3d", BOX, 32)
    assert card.normalisation == "one scale per tomogram, bright"
    assert card.training["particles"] + card.training["validation_particles"] == len(boxes)
    assert card.training["validation_particles"] == 24  # one of four tomograms
    table = pd.read_csv(model.parent / "history.csv")
    assert {"train_loss", "val_loss", "val_error"} <= set(table.columns)
    assert table["val_loss"].iloc[-1] < table["val_loss"].iloc[0]
    assert (table["val_loss"] >= table["val_error"]).all()
    assert not [path for path in model.parent.rglob("*") if path.suffix in (".pt", ".pkl", ".ckpt")]


def test_a_step_over_parts_is_a_step_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    objective = Reconstruction(build_autoencoder("autoencoder3d", 8, 4), SETTINGS)
    x = torch.randn(70, 1, 8, 8, 8)
    objective.losses(x)[1].backward()
    expected = [p.grad.clone() for p in objective.parameters()]
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.0)
    monkeypatch.setattr(objective, "optimizers", lambda: optimiser)
    monkeypatch.setattr(objective, "manual_backward", lambda loss: loss.backward())
    monkeypatch.setattr(objective, "log", lambda *args, **options: None)
    objective.training_step((x,), 0)
    for p, gradient in zip(objective.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-7)


def test_the_loss_is_the_published_one() -> None:
    torch.manual_seed(0)
    objective = Reconstruction(build_autoencoder("autoencoder3d", 8, 4), AutoencoderSettings())
    x = torch.randn(3, 1, 8, 8, 8)
    error, loss = objective.losses(x)
    code = objective.model.encode(x)
    torch.testing.assert_close(error, ((objective.model.decode(code) - x) ** 2).mean())
    torch.testing.assert_close(loss, error + 1e-4 * code.sum() / 3)
    (group,) = objective.configure_optimizers()["optimizer"].param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 0, (0.9, 0.999))
    assert (objective.settings.batch_size, objective.settings.patience, objective.settings.codes) == (128, 20, 32)


def test_a_resumed_training_ends_like_an_unbroken_one(boxes: Subtomograms, tmp_path: Path) -> None:
    """At a constant rate four epochs are two and another two."""
    short, whole = (SETTINGS.model_copy(update={"epochs": n}) for n in (2, 4))
    train_autoencoder(boxes, short, tmp_path / "broken", progress=False)
    resumed = train_autoencoder(boxes, whole, tmp_path / "broken", progress=False)
    unbroken = train_autoencoder(boxes, whole, tmp_path / "whole", progress=False)
    assert resumed.scores["val_error"] == pytest.approx(unbroken.scores["val_error"], abs=1e-6)
    assert len(pd.read_csv(tmp_path / "broken" / "history.csv")) == 4
    weights = [load_autoencoder(tmp_path / name / "model")[0].state_dict() for name in ("broken", "whole")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-6)


def test_one_tomogram_is_enough(boxes: Subtomograms, tmp_path: Path) -> None:
    one = replace(boxes, particles=replace(boxes.particles, tomogram=np.full(len(boxes), "t", dtype=object)))
    card = train_autoencoder(one, SETTINGS.model_copy(update={"epochs": 4}), tmp_path, progress=False)
    assert card.training["validation_particles"] == 14  # 15 % of 96
    assert list(card.scales) == ["t"]


# ------------------------------------------------------------------------------------------------ one scale


def test_one_scale_keeps_what_is_dense_dense() -> None:
    raw = np.random.default_rng(0).normal(10, 3, (6, 8, 8, 8)) * np.array([1, 1, 1, 2, 1, 1])[:, None, None, None]
    mean, deviation = raw.mean(axis=(1, 2, 3)), raw.std(axis=(1, 2, 3))
    scored = (raw - mean[:, None, None, None]) / deviation[:, None, None, None]
    particles = Particles.create(
        ["a"] * 3 + ["b"] * 3, np.zeros((6, 3)), columns={"mean": mean, "deviation": deviation}
    )
    stack = replace(two_shapes(6), particles=particles, stack=scored)
    scales = tomogram_scales(particles)
    assert scales["a"] == (pytest.approx(np.median(mean[:3])), pytest.approx(np.median(deviation[:3])))
    scaled = to_one_scale(stack, scales)
    for row, name in enumerate("aaabbb"):
        expected = (raw[row] - scales[name][0]) / scales[name][1]
        np.testing.assert_allclose(scaled.boxes(slice(row, row + 1))[0], expected, atol=1e-4)
    assert scaled.boxes(np.array([3, 4]))[0].mean() > 2  # twice as dense as its neighbours
    assert scaled.boxes(slice(0, 2)).dtype == np.float32


def test_a_subset_has_the_codes_it_had_among_all(
    trained: tuple[Path, AutoencoderCard], boxes: Subtomograms, tmp_path: Path
) -> None:
    every = encode(boxes, trained[0], EncodeSettings(), tmp_path / "all")
    rows = np.argsort(boxes.particles["deviation"].to_numpy())[-10:]  # whose own scale would be another
    some = replace(boxes, particles=boxes.particles.take(rows), stack=boxes.stack[rows])
    np.testing.assert_allclose(encode(some, trained[0], EncodeSettings(), tmp_path / "some"), every[rows], atol=1e-4)


def test_without_an_extraction_there_is_no_scale_of_a_tomogram(tmp_path: Path) -> None:
    plain = shell_stack(64, BOX, 0.3)
    with pytest.raises(InputError, match="--scale box"):
        train_autoencoder(plain, SETTINGS, tmp_path, progress=False)
    card = train_autoencoder(plain, SETTINGS.model_copy(update={"scale": "box", "epochs": 6}), tmp_path, progress=False)
    assert card.normalisation == "z-score per box, bright" and not card.scales
    assert encode(plain, tmp_path / "model", EncodeSettings(), tmp_path / "work").shape == (64, 32)


def test_a_tomogram_of_constant_boxes_has_no_scale() -> None:
    particles = Particles.create("void", np.zeros((3, 3)), columns={"mean": [1.0] * 3, "deviation": [0.0, 0.0, 1.0]})
    with pytest.raises(InputError, match="some contrast in void"):
        tomogram_scales(particles)


# ------------------------------------------------------------------------------------------------ codes and pictures


def test_runtimes_and_shards_agree(trained: tuple[Path, AutoencoderCard], boxes: Subtomograms, tmp_path: Path) -> None:
    whole = encode(boxes, trained[0], EncodeSettings(), tmp_path / "whole")
    calls: list[tuple[int, int]] = []
    settings = EncodeSettings(shard_size=40, batch_size=16)
    parts = encode(boxes, trained[0], settings, tmp_path / "parts", progress=lambda *done: calls.append(done))
    assert calls == [(40, 96), (80, 96), (96, 96)]
    slow = encode(boxes, trained[0], EncodeSettings(runtime="torch"), tmp_path / "torch")
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    np.testing.assert_allclose(slow, whole, atol=2e-3)
    assert whole.dtype == np.float32 and (whole >= 0).all()


def test_finished_shards_are_not_encoded_again(
    trained: tuple[Path, AutoencoderCard], boxes: Subtomograms, tmp_path: Path
) -> None:
    settings = EncodeSettings(shard_size=40)
    first = encode(boxes, trained[0], settings, tmp_path)
    (tmp_path / "0000000040.npy").unlink()
    np.save(tmp_path / "0000000000.npy", np.full((40, 32), 7, np.float32))
    again = encode(boxes, trained[0], settings, tmp_path)
    assert (again[:40] == 7).all()
    assert again[40:].tobytes() == first[40:].tobytes()


def test_memory_does_not_grow_with_the_boxes(trained: tuple[Path, AutoencoderCard], tmp_path: Path) -> None:
    peaks = []
    for count in (256, 8192):
        path = tmp_path / f"{count}.raw"
        stack = np.memmap(path, dtype=np.float16, mode="w+", shape=(count, BOX, BOX, BOX))
        particles = Particles.create("t", np.zeros((count, 3)), columns={"mean": 0.0, "deviation": 1.0})
        many = replace(two_shapes(2), particles=particles, stack=stack)
        with peak_memory(0.005) as peak:
            encode(many, trained[0], EncodeSettings(shard_size=512), tmp_path / f"work{count}")
        peaks.append(peak.megabytes)
    assert peaks[1] - peaks[0] < 30  # the boxes are 134 MB as float32


def test_decoding_a_code_draws_what_the_network_draws(
    trained: tuple[Path, AutoencoderCard], boxes: Subtomograms, tmp_path: Path
) -> None:
    model, card = trained
    codes = encode(boxes, model, EncodeSettings(runtime="torch"), tmp_path)
    pictures = decode(codes, model, batch_size=10)
    network = load_autoencoder(model)[0]
    given = torch.from_numpy(to_one_scale(boxes, card.scales).boxes(slice(0, 5)))[:, None]
    np.testing.assert_allclose(pictures[:5], network(given)[:, 0].detach().numpy(), atol=1e-4)
    assert pictures.shape == (96, BOX, BOX, BOX)
    with pytest.raises(InputError, match=r"codes of 32 values, got shape \(4, 7\)"):
        decode(np.zeros((4, 7), np.float32), model)


def test_clusters_of_codes_have_the_means_of_their_members() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [30, 20, 10])
    codes = (10 * np.eye(3, 4)[group] + rng.normal(0, 0.1, (60, 4))).astype(np.float32)
    labels, centres = cluster_codes(codes, 3)
    np.testing.assert_array_equal(labels, group)
    np.testing.assert_allclose(centres, [codes[group == k].mean(axis=0) for k in range(3)])
    with pytest.raises(InputError, match="2 particles for 3 patterns"):
        cluster_codes(codes[:2], 3)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_fewer_different_codes_than_patterns_give_fewer_patterns() -> None:
    codes = np.repeat(np.eye(2, 4, dtype=np.float32), 10, axis=0)
    labels, centres = cluster_codes(codes, 5)
    assert len(centres) == 2 and set(labels) == {0, 1}


# ------------------------------------------------------------------------------------------------ refusals


def batches_of(subtomograms: Subtomograms) -> torch.utils.data.DataLoader[tuple[torch.Tensor, ...]]:
    dataset = BoxBatches(subtomograms, np.zeros(len(subtomograms), dtype=np.int64), flips=[])
    return loader(dataset, EpochBatches(np.arange(len(subtomograms)), 16, shuffle=False))


def dead(model: Autoencoder) -> Autoencoder:
    """The same with a code whose ReLUs never answer."""
    (*_, last) = (module for module in model.encoder.modules() if isinstance(module, torch.nn.Linear))
    torch.nn.init.constant_(last.bias, -1e3)
    return model


def test_dead_codes_and_constant_pictures_are_recognised(boxes: Subtomograms) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match=r"same picture for all 96 boxes.*0 of 8 values of the code are alive") as one:
        check_pictures(dead(build_autoencoder("autoencoder3d", BOX, 8)), batches_of(boxes))
    assert "another seed" in str(one.value) and "\n" not in str(one.value)
    deaf = build_autoencoder("autoencoder3d", BOX, 8)
    torch.nn.init.zeros_(next(module for module in deaf.decoder if isinstance(module, torch.nn.Linear)).weight)
    with pytest.raises(InputError, match=r"vary by 0.0e\+00 of what boxes vary"):
        check_pictures(deaf, batches_of(boxes))


def test_an_autoencoder_that_only_pays_the_penalty_is_refused(boxes: Subtomograms, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"code_penalty": 1e3, "epochs": 3, "learning_rate": 1e-2})
    with pytest.raises(InputError, match="draws the same picture"):
        train_autoencoder(boxes, settings, tmp_path, progress=False)
    assert not (tmp_path / "model").exists()


def test_empty_boxes_are_refused(boxes: Subtomograms, tmp_path: Path) -> None:
    void = replace(boxes, stack=np.zeros_like(boxes.stack))
    void = replace(void, particles=void.particles.with_columns(mean=7.0))
    with pytest.raises(InputError, match="see that the boxes are not empty"):
        train_autoencoder(void, SETTINGS.model_copy(update={"epochs": 1}), tmp_path, progress=False)


def test_what_was_not_trained_on_is_refused(trained: tuple[Path, AutoencoderCard], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="boxes of 12 voxels, got 24"):
        encode(two_shapes(4, box_px=24), trained[0], EncodeSettings(), tmp_path)
    with pytest.raises(InputError, match="voxels of 10 Å, got 12 Å"):
        encode(replace(two_shapes(4), voxel_size=12.0), trained[0], EncodeSettings(), tmp_path)
    with pytest.raises(InputError, match="at least two particles"):
        train_autoencoder(two_shapes(1), SETTINGS, tmp_path, progress=False)


def test_other_folders_are_refused(trained: tuple[Path, AutoencoderCard], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none; train one first"):
        load_autoencoder(tmp_path)
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained[0] / name).read_bytes())
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="got other content"):
        load_autoencoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="expected the weights at"):
        load_autoencoder(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    del card["codes"]
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="card of an autoencoder"):
        load_autoencoder(tmp_path)


def test_a_classifier_command_refuses_an_autoencoder(trained: tuple[Path, AutoencoderCard]) -> None:
    with pytest.raises(InputError):
        read_card(trained[0])
    with pytest.raises(InputError):
        load_model(trained[0])
