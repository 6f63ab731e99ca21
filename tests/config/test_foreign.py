"""Configurations of the published code and of mmaction2, named as a preset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dualformer_cli.config.foreign import foreign_config
from dualformer_cli.config.load import known_presets, load_config
from dualformer_cli.errors import ConfigError

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


def test_a_file_of_the_users_own_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dualformer_small.yaml").write_text("extends: small\nmodel: {num_classes: 7}\n")
    assert load_config("dualformer_small.yaml", environ={}).config.model.num_classes == 7
    assert [foreign_config(name) for name in ("k400-small", "mine.yaml", "folder/mine.yml")] == [None] * 3
