"""The lists of a run: what they must have, and how they fit together and to the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from tar_shards import write_shard

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.training.lists import open_lists
from dualformer_cli.errors import ConfigError, DualFormerError

Make = Callable[..., Any]


def test_a_list_with_other_classes_rebuilds_the_classifier_unless_that_contradicts(
    make_trainer: Make, tmp_path: Path, toy_list: Path, toy_preset: Path
) -> None:
    text = toy_preset.read_text().replace("num_classes: 4", "num_classes: 7")
    other = tmp_path / "seven.yaml"
    other.write_text(text + "\n")
    trainer = make_trainer(tmp_path / "run", preset=other)
    assert trainer.config.model.num_classes == 4 == len(trainer.state.model.classifier.weight)
    with pytest.raises(ConfigError, match=r"model.num_classes is 9, but '.*list.csv' has 4 classes; leave"):
        make_trainer(tmp_path / "run", "model.num_classes=9")


def test_a_video_without_a_label_is_refused(make_trainer: Make, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\na.mp4\nb.mp4\n")
    with pytest.raises(DualFormerError, match=r"2 of the 2 videos of the training list '.*list\.csv' have no label"):
        make_trainer(tmp_path / "run", data=tmp_path / "list.csv")


def test_a_run_over_tar_shards_is_that_over_the_files_in_them(
    make_trainer: Make, tmp_path: Path, toy_list: Path, toy_validation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    losses: dict[str, list[Any]] = {"files": [], "shards": [], "remote": []}
    store = fsspec.filesystem("memory")
    folder = tmp_path / "packed"
    folder.mkdir()
    for lines, first in ((toy_list, "train"), (toy_validation, "val")):
        rows = [line.rpartition(",")[::2] for line in lines.read_text().splitlines()[1:9]]
        packed = [[(name, lines.parent / name), (f"{Path(name).stem}.cls", label)] for name, label in rows]
        for number, part in enumerate((packed[:3], packed[3:])):
            shard = write_shard(folder / f"{first}-{number}.tar", [member for members in part for member in members])
            store.pipe(f"/bucket/packed/{shard.name}", shard.read_bytes())
        (folder / f"{first}.csv").write_text("path,label\n" + "".join(f"{lines.parent / n},{c}\n" for n, c in rows))
    fingerprints = []
    for name, start, train, val in (
        ("files", str(folder), "train.csv", "val.csv"),
        ("shards", str(folder), "train-{0..1}.tar", "val-*.tar"),
        ("remote", "memory://bucket/packed", "train-{0..1}.tar", "val-*.tar"),
    ):
        trainer = make_trainer(
            tmp_path / name,
            *("train.epochs=2", f"data.validation_list={start}/{val}"),
            data=f"{start}/{train}",
            on_event=losses[name].append,
        )
        trainer.run()
        fingerprints.append(trainer.lists.training.fingerprint)
    store.rm("/", recursive=True)
    kept = {
        name: [(event.get("loss"), event.get("top1")) for event in events if "loss" in event]
        for name, events in losses.items()
    }
    assert len(kept["files"]) == 4
    assert kept["remote"] == kept["shards"] == kept["files"]
    assert fingerprints[1] == fingerprints[2]  # a run goes on with a copy of the archives, or from one
    assert list((tmp_path / "cache" / "copies").iterdir()) == []


def test_without_a_list_there_is_nothing_to_train_on(toy_preset: Path, tmp_path: Path) -> None:
    from dualformer_cli.engine.training.loop import Trainer

    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="there is no training list; give --data LIST"):
        Trainer(load_config(str(toy_preset), environ={}), alone, output=tmp_path)


def test_what_is_kept_of_a_run_has_paths_that_are_right_from_anywhere(
    make_trainer: Make, tmp_path: Path, toy_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy_list.parent)
    (tmp_path / "labels").mkdir()
    resolved = load_config(
        "k400-tiny",
        overrides=["data.validation_list=list.csv", "data.root=.", "data.classes=./classes.txt", "model.num_classes=4"],
        flags={"data.train_list": toy_list.name},
        environ={},
    )
    train = replace(resolved.config.train, token_labels=os.path.relpath(tmp_path / "labels"))
    lists, config = open_lists(replace(resolved, config=replace(resolved.config, train=train)))
    data = config.data
    assert (data.train_list, data.validation_list, data.root) == (str(toy_list), str(toy_list), str(toy_list.parent))
    assert (data.classes, config.train.token_labels) == (str(toy_list.parent / "classes.txt"), str(tmp_path / "labels"))
    assert lists.training.source == "list.csv"
    taught = replace(config, train=replace(config.train, token_labels=None, teacher="k400-base"))
    (tmp_path / "k400-base").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder that is called as a preset
    assert open_lists(replace(resolved, config=taught))[1].train.teacher == "k400-base"


def test_training_on_one_class_is_refused(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    lines = toy_list.read_text().splitlines()
    one = toy_list.with_name("one class.csv")
    one.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.endswith(",2"))]) + "\n")
    with pytest.raises(ConfigError, match=r"all 8 videos of the training list .* are of one class, 'green'"):
        make_trainer(tmp_path, data=one)
    one.write_text("\n".join(one.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(ConfigError, match=r"the one video of the training list .* is of one class, 'green'"):
        make_trainer(tmp_path, data=one)


def test_a_validation_label_that_training_lacks_is_named_with_both_lists(
    make_trainer: Make, tmp_path: Path, toy_list: Path
) -> None:
    rows = [line.rpartition(",")[::2] for line in toy_list.read_text().splitlines()[1:]]
    folder = tmp_path / "lists"
    folder.mkdir()
    train, val = folder / "train.csv", folder / "val.csv"
    train.write_text("".join(f"{toy_list.parent / name},{label}\n" for name, label in rows if label in "01"))
    val.write_text("".join(f"{toy_list.parent / name},{label}\n" for name, label in rows if label in "13"))
    with pytest.raises(DualFormerError) as caught:
        make_trainer(tmp_path / "run", f"data.validation_list={val}", data=train)
    text = str(caught.value)
    assert f"list {str(val)!r} has label 3, but the training list {str(train)!r} has 2 classes" in text
    assert f"it is that of {str(toy_list.parent / rows[3][0])!r}" in text


def test_videos_that_train_and_validate_are_said(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    trainer = make_trainer(tmp_path, f"data.validation_list={toy_list}")
    assert [note for note in trainer.notes if note.startswith("32 videos of the validation list train too")]
    one = toy_list.with_name("one video.csv")
    one.write_text("".join(line + "\n" for line in toy_list.read_text().splitlines()[:2]))
    trainer = make_trainer(tmp_path / "another", f"data.validation_list={one}")
    assert [note for note in trainer.notes if note.startswith("1 video of the validation list trains too, such as")]


def test_a_list_that_counts_from_1_is_warned_about(
    make_trainer: Make, tmp_path: Path, toy_list: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [line.rpartition(",")[::2] for line in toy_list.read_text().splitlines()[1:]]
    path = tmp_path / "from 1.csv"
    path.write_text("".join(f"{toy_list.parent / name},{int(label) + 1}\n" for name, label in rows))
    make_trainer(tmp_path / "run", data=path)
    assert "has the labels 1 to 4 and never 0" in caplog.text
