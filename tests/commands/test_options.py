"""Options that commands share: how they reach the configuration, and what the shell completes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dualformer_cli.commands.options import (
    CompileOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    OverridesOption,
    PrecisionOption,
    PresetOption,
    PrintConfigOption,
    SeedOption,
    VerboseOption,
    ViewsOption,
    WeightsOption,
    folder_or_file,
    model_request,
    parse_views,
    print_document,
)
from dualformer_cli.documents.gradcam import LayerList
from dualformer_cli.tasks.session import resolve

app = typer.Typer(rich_markup_mode=None)


@app.command()
def show(
    preset: PresetOption = None,
    overrides: OverridesOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile_model: CompileOption = None,
    seed: SeedOption = None,
    views: ViewsOption = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Print what the options became."""
    resolved = resolve(
        model_request(
            preset,
            weights=weights,
            overrides=overrides,
            device=device,
            precision=precision,
            compile_=compile_model,
            seed=seed,
            views=views,
        )
    )
    test = resolved.config.data.test
    runtime = resolved.config.runtime
    typer.echo(f"{resolved.preset} {resolved.config.weights} {resolved.config.data.crop_size}")
    typer.echo(f"{runtime.device} {runtime.precision} {runtime.compile} {runtime.seed}")
    typer.echo(f"{test.num_clips}x{test.num_crops}")
    typer.echo(f"{as_json} {offline} {print_config} {verbose}")


@pytest.fixture(autouse=True)
def _quiet_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DUALFORMER_OFFLINE", raising=False)
    logger = logging.getLogger("dualformer_cli")
    level = logger.level
    yield
    logger.setLevel(level)


def shown(*arguments: str, **environ: str) -> list[str]:
    result = CliRunner().invoke(app, list(arguments), env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_options_that_are_not_given_change_nothing() -> None:
    assert shown() == ["default None 224", "auto auto False 0", "4x1", "False False False False"]


def test_every_option_arrives_at_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pth").touch()
    arguments = (
        "--preset small --set data.crop_size=112 --weights w.pth --device cpu --precision fp32 --compile --seed 3"
    )
    assert shown(*arguments.split(), "--views", "2x3", "--json", "--offline", "--print-config", "-v") == [
        "small w.pth 112",
        "cpu fp32 True 3",
        "2x3",
        "True True True True",
    ]


def test_a_flag_can_switch_off_what_a_set_switched_on() -> None:
    arguments = ("--set", "runtime.compile=true", "--set", "runtime.seed=1")
    assert shown(*arguments)[1] == "auto auto True 1"
    assert shown(*arguments, "--no-compile", "--seed", "0")[1] == "auto auto False 0"


@pytest.mark.parametrize(("value", "expected"), [("1", "True"), ("true", "True"), ("0", "False"), ("", "False")])
def test_offline_can_come_from_the_environment(value: str, expected: str) -> None:
    assert shown(DUALFORMER_OFFLINE=value)[3].split()[1] == expected


@pytest.mark.parametrize("views", ["", "4", "4x", "0x1", "4x3x2", "-1x1", "4 x 3", "4\u00b2x1", "99999x1"])
def test_views_in_another_form_are_wrong_usage(views: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not CLIPSxCROPS, such as 4x3"):
        parse_views(views)


def test_processes_on_a_cpu_run_on_it_whatever_the_device() -> None:
    assert model_request("tiny", device="cuda", cpu_processes=2).device == "cpu"
    assert model_request("tiny", device="cuda").device == "cuda"
    assert model_request("tiny", offline=True).offline
    assert not model_request("tiny").offline


def test_a_document_is_printed_as_json_or_as_text_and_none_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    layers = LayerList(preset="tiny", layers=())
    print_document(layers, lambda document: print(document.preset), as_json=False)
    print_document(layers, lambda document: print(document.preset), as_json=True)
    print_document(None, print, as_json=True)
    print_document(None, print, as_json=False)
    assert capsys.readouterr().out == 'tiny\n{\n  "preset": "tiny",\n  "layers": []\n}\n'


def test_a_folder_is_made_where_its_name_ends_in_a_slash(tmp_path: Path) -> None:
    assert folder_or_file(f"{tmp_path}/new/one/") == tmp_path / "new" / "one"
    assert (tmp_path / "new" / "one").is_dir()
    assert folder_or_file(f"{tmp_path}/new/one/") == tmp_path / "new" / "one"
    assert not folder_or_file(f"{tmp_path}/a.mp4").exists()
    (tmp_path / "a.mp4").touch()
    with pytest.raises(typer.BadParameter, match=r"cannot make the folder '.*/a\.mp4/'"):
        folder_or_file(f"{tmp_path}/a.mp4/")


def test_verbose_lets_details_through_and_its_absence_does_not_take_them_back() -> None:
    logger = logging.getLogger("dualformer_cli")
    logger.setLevel(logging.WARNING)
    shown()
    assert not logger.isEnabledFor(logging.DEBUG)
    shown("--verbose")
    shown()
    assert logger.isEnabledFor(logging.DEBUG)
