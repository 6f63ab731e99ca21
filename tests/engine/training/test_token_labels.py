"""Training with token labels: a teacher on the fly, the same labels from a folder, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import load_checkpoint
from einops import rearrange
from published_layout import to_published

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import RuntimeConfig
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.training import teacher as teachers
from dualformer_cli.engine.training.losses import soft_token_labels
from dualformer_cli.engine.training.teacher import Student, Teacher
from dualformer_cli.errors import ConfigError, DualFormerError, WeightsError

Make = Callable[..., Any]
CPU = torch.device("cpu")
NAMES = ["dark", "red", "green", "blue"]
WHOLE = ("data.train.short_side=64", "data.train.area=[1,1]", "data.train.aspect=[1,1]", "data.train.flip=0")
"""The crop is the whole frame."""
TOKENS = "model.token_head=true"


class Interrupt(Exception):  # noqa: N818
    """Stands for a process that ends without warning."""


def student_of(preset: Path, *overrides: str, class_names: list[str] = NAMES) -> tuple[Any, Student]:
    config = load_config(str(preset), overrides=overrides, environ={}).config
    data = config.data
    size = (data.clip.num_frames, data.crop_size, data.crop_size)
    return config, Student(
        input_size=size, grid=teachers.token_grid(config.model, config.data), class_names=class_names
    )


def open_teacher(
    source: Path, student: Path, *overrides: str, class_names: list[str] = NAMES, preset: Path | None = None
) -> Teacher:
    config, what = student_of(student, *overrides, class_names=class_names)
    named = None if preset is None else str(preset)
    return Teacher(str(source), what, preset=named, runtime=config.runtime, device=CPU)


def step_event(trainer: Any) -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    trainer.log.on_event = lambda event: events.append(to_json(event))
    trainer.run()
    return next(event for event in events if event["event"] == "step")


def test_the_loss_is_gamma_of_the_classifier_and_the_rest_of_the_tokens(
    make_trainer: Make, teacher_file: Path, tmp_path: Path, one_clip_list: Path
) -> None:
    options = (TOKENS, f"train.teacher={teacher_file}", "train.token_gamma=0.25")
    trainer = make_trainer(tmp_path / "run", *options, data=one_clip_list)
    event = step_event(trainer)
    mixture = 0.25 * event["classification_loss"] + 0.75 * event["token_loss"]
    assert event["loss"] == pytest.approx(mixture, rel=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["token_loss"] for row in rows if row["event"] == "step"] == [event["token_loss"]]
    assert any("tokens are labelled by" in note and "the best 4 of fp32 logits" in note for note in trainer.notes)


def test_a_teacher_stays_as_it_is_and_out_of_the_student(
    make_trainer: Make, teacher_file: Path, tmp_path: Path, one_clip_list: Path
) -> None:
    trainer = make_trainer(tmp_path / "run", TOKENS, f"train.teacher={teacher_file}", data=one_clip_list)
    model = trainer.stepper.labeller.teacher.engine.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any("running_mean" in name for name in before)
    weights = {name: value.clone() for name, value in trainer.state.model.state_dict().items()}
    trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert list(checkpoint["model"]) == list(build_model(trainer.config.model, trainer.config.data).state_dict())
    moved = [name for name in weights if not torch.equal(weights[name], checkpoint["model"][name])]
    assert any(name.startswith("token_head.") for name in moved)
    sizes = {value.shape for value in before.values()} - {value.shape for value in weights.values()}
    held = [value.shape for part in (checkpoint["model"], checkpoint["optimizer"]["state"]) for value in tensors(part)]
    assert sizes, "the teacher has tensors that the student has not"
    assert not sizes & set(held)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value.values() for tensor in tensors(item)] if isinstance(value, dict) else []


@pytest.mark.parametrize("renormalise", ["false", "true"])
def test_a_step_on_the_fly_is_a_step_from_stored_labels_when_the_crop_is_the_whole_frame(
    make_trainer: Make,
    write_labels: Make,
    teacher_file: Path,
    tmp_path: Path,
    one_clip_list: Path,
    renormalise: str,
) -> None:
    options = (TOKENS, *WHOLE, "train.token_top_k=3", f"train.token_renormalise={renormalise}")
    write_labels(tmp_path / "labels", "train.token_top_k=3", data=one_clip_list)
    fly = make_trainer(tmp_path / "fly", *options, f"train.teacher={teacher_file}", data=one_clip_list)
    stored = make_trainer(
        tmp_path / "stored", *options, f"train.token_labels={tmp_path / 'labels'}", data=one_clip_list
    )
    one, other = step_event(fly), step_event(stored)
    for name in ("loss", "classification_loss", "token_loss"):
        assert one[name] == pytest.approx(other[name], rel=1e-4), name
    for (name, a), (_, b) in zip(
        fly.state.model.named_parameters(), stored.state.model.named_parameters(), strict=True
    ):
        assert (a.grad - b.grad).norm() <= 2e-3 * a.grad.norm() + 1e-7, name
    token_heads = [model.token_head[-1].weight.grad.norm() for model in (fly.state.model, stored.state.model)]
    assert min(token_heads) > 1e-3


def test_stored_labels_follow_random_crops_flips_and_starts(
    make_trainer: Make, write_labels: Make, tmp_path: Path, toy_list: Path
) -> None:
    write_labels(tmp_path / "labels", data=toy_list, per_shard=5)
    trainer = make_trainer(tmp_path / "run", TOKENS, f"train.token_labels={tmp_path / 'labels'}", data=toy_list)
    order = np.arange(len(trainer.lists.training))
    with trainer.pool() as pool:
        batch = next(trainer.steps(pool, order))[0]
    labels = trainer.stepper.labeller.labels(batch)
    assert labels.shape == (8, 4, 2, 2, 4)
    torch.testing.assert_close(labels.sum(dim=-1), torch.ones(8, 4, 2, 2))
    assert len({tuple(box) for box in batch.boxes.tolist()}) == 8
    event = step_event(trainer)
    assert np.isfinite(event["token_loss"])


def test_the_teachers_neighbouring_frames_are_averaged_where_the_student_has_fewer(
    toy_preset: Path, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = "model.patch_sizes=[[4,4,4],[1,2,2],[1,2,2],[1,2,2]]"
    teacher = open_teacher(teacher_file, toy_preset, longer)
    uploaded: list[torch.Tensor] = []
    monkeypatch.setattr(teachers, "upload", lambda values, device: uploaded.append(values) or values)
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 64, 64, 3), dtype=np.uint8))
    logits = teacher.token_logits(clips)
    assert [values.data_ptr() for values in uploaded] == [clips.data_ptr()]  # whole: parts of it would not be tracked
    model, data = teacher.engine.model, teacher.engine.config.data
    with torch.no_grad():
        full = model.classifier(model.forward_tokens(normalize(clips, data.mean, data.std, torch.float32)))
    assert full.shape == (2, 4, 2, 2, 4)
    expected = torch.stack([(full[:, 0] + full[:, 1]) / 2, (full[:, 2] + full[:, 3]) / 2], dim=1)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    distant = rearrange(full, "b (r t) h w c -> b t r h w c", r=2).mean(dim=2)
    assert (logits - distant).abs().max() > 1e-2


def test_classes_in_another_order_are_matched_by_name(toy_preset: Path, teacher_file: Path) -> None:
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 8, 64, 64, 3), dtype=np.uint8))
    own = open_teacher(teacher_file, toy_preset)
    other = open_teacher(teacher_file, toy_preset, class_names=["blue", "dark", "Green", "red"])
    torch.testing.assert_close(other.token_logits(clips), own.token_logits(clips)[..., [3, 0, 2, 1]])
    assert other.in_student_order(np.array([0.0, 1.0, 2.0, 3.0])).tolist() == [3, 0, 2, 1]
    nameless = open_teacher(teacher_file, toy_preset, class_names=[f"class {index}" for index in range(4)])
    torch.testing.assert_close(nameless.token_logits(clips), own.token_logits(clips))


def test_a_batch_without_clips_has_no_labels(toy_preset: Path, teacher_file: Path) -> None:
    teacher = open_teacher(teacher_file, toy_preset)
    assert teacher.token_logits(torch.empty((0, 8, 64, 64, 3), dtype=torch.uint8)).shape == (0, 4, 2, 2, 4)


def test_a_published_file_is_a_teacher_once_its_preset_is_named(
    toy_preset: Path, teacher_file: Path, tmp_path: Path
) -> None:
    wrapped = {f"module.{key}": value for key, value in to_published(load_checkpoint(teacher_file)["model"]).items()}
    torch.save({"state_dict": wrapped, "meta": {}}, tmp_path / "published.pth")
    preset = tmp_path / "teacher.yaml"
    preset.write_text(load_checkpoint(teacher_file)["config"])
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 8, 64, 64, 3), dtype=np.uint8))
    own = open_teacher(teacher_file, toy_preset).token_logits(clips)
    named = open_teacher(tmp_path / "published.pth", toy_preset, preset=preset)
    torch.testing.assert_close(named.token_logits(clips), own)
    with pytest.raises(WeightsError, match=r"does not say what it is of.*train.teacher_preset=FILE.yaml"):
        open_teacher(tmp_path / "published.pth", toy_preset)


def test_a_run_with_a_teacher_resumes_exactly_and_only_with_the_same_one(
    make_trainer: Make, make_teacher: Make, teacher_file: Path, tmp_path: Path, toy_list: Path, part_of: Make
) -> None:
    options = (TOKENS, f"train.teacher={teacher_file}", "train.epochs=2", "model.dropout=0.3")
    data = part_of(toy_list, 16)
    make_trainer(tmp_path / "unbroken", *options, data=data).run()

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            raise Interrupt

    with pytest.raises(Interrupt):
        make_trainer(tmp_path / "broken", *options, data=data, on_event=stop).run()
    make_trainer(tmp_path / "broken", *options, data=data, resume=True).run()
    ends = [load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["model"] for name in ("unbroken", "broken")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    other = make_teacher(tmp_path / "other.pt", seed=4)
    with pytest.raises(DualFormerError, match=r"cannot resume .*: its source of token labels was teacher "):
        make_trainer(tmp_path / "broken", *options, f"train.teacher={other}", data=data, resume=True)


def test_a_token_head_without_a_teacher_is_told(make_trainer: Make, tmp_path: Path, one_clip_list: Path) -> None:
    trainer = make_trainer(tmp_path / "run", TOKENS, data=one_clip_list)
    assert "the token head is not trained: there is no teacher" in trainer.notes
    assert "token_loss" not in step_event(trainer)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.teacher={file}"], r"train.teacher labels tokens, but the model has no head.*model.token_head=true"),
        (
            [TOKENS, "train.teacher={file}", "train.mixup_alpha=0.2"],
            r"mixup_alpha and cutmix_alpha must be 0.*0.2 and 0",
        ),
        ([TOKENS, "train.teacher={file}", "train.token_labels=x"], r"teacher must be null when token_labels is 'x'"),
        (
            [TOKENS, "train.token_labels=x", "train.rand_augment_ops=2"],
            r"rand_augment_ops must be 0 with token_labels, got 2",
        ),
        ([TOKENS, "train.teacher={file}", "train.token_gamma=2"], r"token_gamma must be between 0 and 1, got 2"),
        ([TOKENS, "train.teacher={file}", "train.token_top_k=0"], r"token_top_k must be at least 1, got 0"),
        (
            [TOKENS, "train.teacher=k400-bse"],
            r"teacher 'k400-bse' is neither a file nor a preset.*did you mean 'k400-base'",
        ),
        (
            [TOKENS, "train.token_labels=x"],
            r"there are no token labels in 'x'; make them with dualformer tokenlabel write",
        ),
    ],
)
def test_a_run_that_cannot_label_tokens_says_why(
    make_trainer: Make, teacher_file: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(DualFormerError, match=message):
        make_trainer(tmp_path / "run", *(text.format(file=teacher_file) for text in overrides))


def test_a_teacher_that_does_not_fit_says_why(
    toy_preset: Path, teacher_file: Path, make_teacher: Make, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"has 4 classes, the model has 3; they must be the same"):
        open_teacher(teacher_file, toy_preset, class_names=["dark", "red", "green"])
    with pytest.raises(ConfigError, match=r"does not know 'purple'; take a teacher that was trained on these"):
        open_teacher(teacher_file, toy_preset, class_names=["dark", "red", "green", "purple"])
    coarse = make_teacher(tmp_path / "coarse.pt", "model.patch_sizes=[[2,4,4],[1,2,2],[1,2,2],[1,1,1]]")
    with pytest.raises(ConfigError, match=r"has a token grid of 4x4x4, the model of 4x2x2 \(time x height x width\)"):
        open_teacher(coarse, toy_preset)
    slow = make_teacher(tmp_path / "slow.pt", "model.patch_sizes=[[4,4,4],[1,2,2],[1,2,2],[1,2,2]]")
    with pytest.raises(ConfigError, match=r"has a token grid of 2x2x2, the model of 4x2x2"):
        open_teacher(slow, toy_preset)
    big = make_teacher(tmp_path / "big.pt", "data.clip.num_frames=16", "model.window_size=[8,2,2]")
    with pytest.raises(ConfigError, match=r"takes clips whose frames are a multiple of 16, .*are 8 frames of 64x64"):
        open_teacher(big, toy_preset)


def test_a_file_that_loads_nothing_is_no_teacher(toy_preset: Path, teacher_file: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {"teacher.stem.weight": torch.zeros(3)}}, tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match=r"holds no tensors of a DualFormer \(teacher.stem.weight, ...\)"):
        open_teacher(tmp_path / "nothing.pth", toy_preset)
    with pytest.raises(WeightsError, match="are not DualFormer weights"):
        open_teacher(tmp_path / "nothing.pth", toy_preset, preset=toy_preset)
    half = dict(list(load_checkpoint(teacher_file)["model"].items())[:20])
    torch.save({**load_checkpoint(teacher_file), "model": half}, tmp_path / "half.pt")
    with pytest.raises(WeightsError, match=r"half.pt.*(missing|the model is)"):
        open_teacher(tmp_path / "half.pt", toy_preset)
    (tmp_path / "bare.yaml").write_text(toy_preset.read_text())
    with pytest.raises(ConfigError, match=r"is a preset without weights; name them in it, as weights: FILE"):
        open_teacher(tmp_path / "bare.yaml", toy_preset)
    (tmp_path / "random.yaml").write_text("weights: random\n" + toy_preset.read_text())
    with pytest.raises(WeightsError, match="has random weights, which teach nothing"):
        open_teacher(tmp_path / "random.yaml", toy_preset)
    (tmp_path / "named.yaml").write_text(
        f"weights: {teacher_file}\n" + load_checkpoint(teacher_file)["config"].replace("weights: null\n", "")
    )
    assert open_teacher(tmp_path / "named.yaml", toy_preset).facts.weights_sha256


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.clip.frame_interval=2"], r"their clip's frame_interval is 1, the run's is 2"),
        (
            ["data.clip.num_frames=16"],
            r"their token grid \(time, height, width\) is \(4, 2, 2\), the run's is \(8, 2, 2\)",
        ),
        (["train.token_top_k=4"], r"train.token_top_k must be at most 3, which is what .* holds of each token, got 4"),
    ],
)
def test_stored_labels_of_another_recipe_are_refused(
    make_trainer: Make, write_labels: Make, tmp_path: Path, one_clip_list: Path, overrides: list[str], message: str
) -> None:
    write_labels(tmp_path / "labels", "train.token_top_k=3", data=one_clip_list)
    options = [TOKENS, "train.token_top_k=3", f"train.token_labels={tmp_path / 'labels'}", *overrides]
    with pytest.raises(ConfigError, match=message):
        make_trainer(tmp_path / "run", *options, data=one_clip_list)


def test_stored_labels_of_another_list_or_with_holes_are_refused(
    make_trainer: Make, write_labels: Make, tmp_path: Path, one_clip_list: Path, toy_list: Path
) -> None:
    write_labels(tmp_path / "labels", data=one_clip_list)
    options = [TOKENS, f"train.token_labels={tmp_path / 'labels'}"]
    with pytest.raises(ConfigError, match=r"do not belong to this run: their list is [0-9a-f]{12}, the run's is"):
        make_trainer(tmp_path / "run", *options, data=toy_list)
    (tmp_path / "labels" / "shard-00001.json").unlink()
    with pytest.raises(DualFormerError, match=r"are not complete: 1 of 3 shards are missing; run the same"):
        make_trainer(tmp_path / "run", *options, data=one_clip_list)


def test_soft_labels_of_a_batch_are_those_of_the_published_rule(
    make_trainer: Make, teacher_file: Path, tmp_path: Path, one_clip_list: Path
) -> None:
    options = (TOKENS, *WHOLE, f"train.teacher={teacher_file}", "train.token_top_k=2")
    trainer = make_trainer(tmp_path / "run", *options, data=one_clip_list)
    with trainer.pool() as pool:
        batch = next(trainer.steps(pool, np.arange(8)))[0]
    logits = trainer.stepper.labeller.teacher.token_logits(torch.from_numpy(batch.clips))
    values, indices = logits.topk(2)
    kept = torch.zeros_like(logits).scatter(-1, indices, values)
    torch.testing.assert_close(trainer.stepper.labeller.labels(batch), kept.softmax(-1))
    torch.testing.assert_close(soft_token_labels(values, indices, num_classes=4), kept.softmax(-1))


def test_a_teacher_computes_as_the_run_does_whatever_names_it(
    mini_preset: Path, mini_weights: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"extends: {mini_preset}\nweights: {mini_weights}\n")
    runtime = RuntimeConfig(precision="bf16", device="cpu", seed=7)
    for source, preset, expected in (
        ("k400-tiny", None, ("k400-tiny", "published")),
        (str(own), None, (str(own), str(mini_weights))),
        (str(mini_weights), str(mini_preset), (str(mini_preset), str(mini_weights))),
    ):
        found = teachers._resolve(source, preset, runtime, offline=True)
        assert (found.preset, found.config.weights) == expected
        of_run = found.config.runtime
        assert (of_run.precision, of_run.device, of_run.seed) == ("bf16", "cpu", 7)
