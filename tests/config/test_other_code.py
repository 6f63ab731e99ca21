"""Configurations of the published code and of mmaction2, named as a preset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.config.load import known_keys, known_presets, load_config
from dualformer_cli.config.other_code import COMMANDS, KEYS, OPTIONS, foreign_config, key_instead
from dualformer_cli.errors import ConfigError

OF_OPTIONS = ("train", "eval", "predict", "gradcam")
"""Commands that have the options that are named in place of those of other code."""
PAGE = Path(__file__).parents[2] / "dualformer_cli" / "docs" / "coming-from.md"
TABLE = dict(
    re.findall(r"^\| `(dualformer_\w+)\.py` \| `([\w-]+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)


def test_the_page_has_the_ten_published_configurations_and_presets_that_exist() -> None:
    assert len(TABLE) == 10
    assert set(TABLE.values()) == {name for name in known_presets() if "-" in name and name != "camera-motion"}


@pytest.mark.parametrize(("stem", "preset"), TABLE.items())
@pytest.mark.parametrize(
    "form", ["{}", "{}.py", "configs/recognition/dualformer/{}.py", "{}.yaml", "..\\configs\\{}.py"]
)
def test_a_published_configuration_is_answered_with_its_preset(stem: str, preset: str, form: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(form.format(stem), environ={})
    assert f"here it is the preset {preset}: --preset {preset}. Lists are given with --data" in str(caught.value)
    assert str(caught.value).endswith(f"More: {PAGE}")


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("configs/recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb.py", "k400-tiny"),
        ("configs/recognition/swin/swin-base-p244-w877_kinetics600_22k.py", "k600-base"),
        ("tsn_imagenet-pretrained-r50_8xb32-1x1x8-50e_sthv2-rgb.py", "k400-small"),
        ("c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py", "ucf101-small"),
        ("slowfast_hmdb51.py", "hmdb51-small"),
        ("diving_48_small.py", "diving48-small"),
    ],
)
def test_another_configuration_of_mmaction2_is_answered_with_the_nearest_preset(name: str, preset: str) -> None:
    with pytest.raises(ConfigError, match=rf"Python configuration, as mmaction2 .* nearest one is --preset {preset}\."):
        load_config(name, environ={})


@pytest.mark.parametrize("text", ["_base_: [../default_runtime.py]\n", "model:\n  type: Recognizer3D\n"])
def test_a_yaml_file_of_mmaction2_is_known_by_its_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "swin-tiny_ucf101.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"is a configuration of mmaction2, as .* says\. .* --preset ucf101-tiny\."):
        load_config(str(path), environ={})


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["train", "--work-dir", "w"], "--work-dir is of other code; here it is --output DIR. More: "),
        (["eval", "--cfg-options", "a=b"], "--cfg-options is of other code; here it is --set KEY=VALUE. More: "),
        (["predict", "--rec", "tsn"], "--rec is of other code; here it is --preset NAME|FILE.yaml. More: "),
        (["flops", "tiny", "--cfg-options=a=b"], "here it is --set KEY=VALUE"),
        (["test", "config.py", "x.pth"], "test is of other code; here it is dualformer eval. More: "),
        (["tools/test.py", "config.py", "x.pth"], "tools/test.py is of other code; here it is dualformer eval. More: "),
        (["tools/train.py", "config.py"], "tools/train.py is of other code; here it is dualformer train. More: "),
        (["./tools/dist_train.sh", "config.py", "8"], "dist_train.sh is of other code; here it is dualformer train"),
        (["eval", "--eval", "top_k_accuracy"], "--eval is of other code; here it is always so, every metric is"),
        (["train", "data/train"], "unexpected extra argument"),
        (["train", "--nothing"], "No such option: --nothing"),
        (["train", "word"], "unexpected extra argument"),
        (["tests"], "No such command 'tests'"),
    ],
)
def test_options_and_scripts_of_other_code_are_answered_with_what_does_the_same(typed: list[str], answer: str) -> None:
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert answer in " ".join(result.stderr.split())


def test_what_is_named_in_place_of_other_code_is_there() -> None:
    commands = {typed: CliRunner().invoke(app, [typed, "--help"], env={"COLUMNS": "200"}) for typed in OF_OPTIONS}
    assert all(result.exit_code == 0 for result in commands.values())
    shown = " ".join(result.stdout for result in commands.values())
    for here in OPTIONS.values():
        option = here.split()[0].rstrip(",")
        assert not option.startswith("--") or option in shown
    for command in COMMANDS.values():
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_the_page_and_the_answers_say_the_same() -> None:
    """Of each option, script and key of other code the page has a row, and what the answer names is in that row."""
    rows = [
        row.split(" | ") for row in re.findall(r"^\| (.* \| .*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    ]

    def words(text: str) -> set[str]:
        return {word.removeprefix("--").replace("-", "_") for word in re.findall(r"[\w-]+", text)}

    there_to_here = [(words(there), words(here)) for there, here in rows]
    for typed, answer in {**OPTIONS, **COMMANDS, **KEYS}.items():
        (name,), named = words(typed), words(re.split(r"[ ,|]", answer)[0].rpartition(".")[2])
        assert any(name in there and named <= here for there, here in there_to_here), (typed, answer)
    on_the_page = {option for there, _ in rows for option in re.findall(r"`(--[\w-]+)", there)}
    assert on_the_page - {"--seed", "--resume"} <= set(OPTIONS)  # these two are known here, too


def test_keys_of_mmaction2_are_answered_with_the_key_that_decides_the_same() -> None:
    with pytest.raises(ConfigError, match=r"data\.videos_per_gpu: unknown key; did you mean 'train\.batch_size'\?"):
        load_config("tiny", overrides=["data.videos_per_gpu=8"], environ={})
    assert {key_instead(f"data.{key}") for key in ("clip_len", "workers_per_gpu")} <= set(known_keys())
    assert key_instead("train.lr") is None
    lists = {
        "data.train.ann_file": "train",
        "data.val.ann_file": "validation",
        "test_dataloader.ann_file": "validation",
    }
    assert {key: key_instead(key) for key in lists} == {key: f"data.{part}_list" for key, part in lists.items()}


def test_a_key_of_mmaction2_that_is_an_option_here_is_answered_with_the_option() -> None:
    with pytest.raises(ConfigError, match=r"work_dir: no key, but an option here: --output DIR \(from --set\)"):
        load_config("tiny", overrides=["work_dir=runs"], environ={})


def test_a_file_of_the_users_own_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dualformer_small.yaml").write_text("extends: small\nmodel: {num_classes: 7}\n")
    assert load_config("dualformer_small.yaml", environ={}).config.model.num_classes == 7
    assert [foreign_config(name) for name in ("k400-small", "mine.yaml", "folder/mine.yml")] == [None] * 3
