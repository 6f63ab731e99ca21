"""Where a configuration comes from, which source wins, and what the loader says about a mistake."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualformer_cli.config.load import ResolvedConfig, known_presets, load_config, to_yaml
from dualformer_cli.config.schema import (
    ClipConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    TrainConfig,
    ViewsConfig,
)
from dualformer_cli.errors import ConfigError

Write = Callable[..., str]


def load(preset: str | None = None, *overrides: str, **sources: Any) -> ResolvedConfig:
    return load_config(preset, overrides=overrides, **{"environ": {}, **sources})


def message_of(*arguments: Any, **sources: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **sources)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a preset file and return its path: write(text, name="own.yaml")."""

    def write_file(text: str | bytes, name: str = "own.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_file


def test_no_preset_gives_the_defaults_under_the_name_default() -> None:
    resolved = load()
    assert resolved.config == RunConfig()
    assert resolved.preset == "default"
    assert set(resolved.origins.values()) == {"default"}


def test_a_flag_wins_over_set_over_environment_over_preset_over_default(write: Write) -> None:
    preset = write("runtime: {seed: 1}")
    environ = {"DUALFORMER_RUNTIME__SEED": "2"}
    flags = {"runtime.seed": 4}
    seen = [
        load(),
        load(preset),
        load(preset, environ=environ),
        load(preset, "runtime.seed=3", environ=environ),
        load(preset, "runtime.seed=3", environ=environ, flags=flags),
    ]
    assert [resolved.config.runtime.seed for resolved in seen] == [0, 1, 2, 3, 4]
    assert [resolved.origins["runtime.seed"] for resolved in seen] == [
        "default",
        f"preset {preset}",
        "environment DUALFORMER_RUNTIME__SEED",
        "--set",
        "flag",
    ]


def test_of_two_sets_of_one_key_the_last_wins() -> None:
    assert load(None, "runtime.seed=1", "runtime.seed=2").config.runtime.seed == 2


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALFORMER_RUNTIME__DEVICE", "cpu")
    assert load_config(None).config.runtime.device == "cpu"


def test_a_child_preset_wins_over_its_parent_and_each_value_names_its_file(write: Write) -> None:
    write("extends: small\ndata: {crop_size: 112}\nruntime: {seed: 1}\n", "parent.yaml")
    child = write("extends: parent.yaml\nruntime: {seed: 2}\n")
    resolved = load(child)
    assert resolved.preset == child
    assert (resolved.config.runtime.seed, resolved.config.data.crop_size) == (2, 112)
    assert resolved.config.model.embed_dims == (96, 192, 384, 768)
    assert resolved.origins["runtime.seed"] == f"preset {child}"
    assert resolved.origins["data.crop_size"] == f"preset {Path(child).parent / 'parent.yaml'}"
    assert resolved.origins["model.embed_dims"] == "preset small"
    assert resolved.origins["model.mlp_ratio"] == "default"


def test_relative_parents_are_found_beside_their_child(write: Write, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write("extends: deep/middle.yaml", "top.yaml")
    write("extends: ../root.yaml", "deep/middle.yaml")
    write("runtime: {seed: 7}", "root.yaml")
    assert load(str(tmp_path / "top.yaml")).config.runtime.seed == 7


def test_presets_that_extend_each_other_are_named_in_their_circle(write: Write, tmp_path: Path) -> None:
    first = write("extends: ./second.yaml", "first.yaml")
    write("extends: ./first.yaml", "second.yaml")
    circle = f"{first} -> {tmp_path / 'second.yaml'} -> {tmp_path / 'first.yaml'}"
    assert message_of(first) == f"preset {first!r} extends itself: {circle}; remove one `extends`"


def test_a_file_that_has_the_name_of_a_shipped_preset_may_extend_it(write: Write) -> None:
    resolved = load(write("extends: small\nmodel: {num_classes: 7}", "small.yaml"))
    assert (resolved.config.model.num_classes, resolved.config.model.depths) == (7, (2, 2, 18, 2))


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("train.lr=1e-3", "lr", 1e-3),
        ("train.weight_decay=5", "weight_decay", 5.0),
        ("train.lr=.5", "lr", 0.5),
        ("train.init_from=null", "init_from", None),
        ("train.init_from=~", "init_from", None),
        ("train.init_from=", "init_from", None),
        ("train.init_from='null'", "init_from", "null"),
        ("train.init_from=no", "init_from", "no"),
        ("train.init_from=010", "init_from", "010"),
        ("train.init_from=a: b # c", "init_from", "a: b # c"),
        ("train.init_from=*.pt", "init_from", "*.pt"),
        ("train.init_from=a=b", "init_from", "a=b"),
        (" train.epochs = 3 ", "epochs", 3),
        ("train.decay_norms=no", "decay_norms", False),
        ("train.decay_norms=ON", "decay_norms", True),
        ("train.decay_norms=false", "decay_norms", False),
    ],
)
def test_a_set_is_parsed_by_the_type_of_its_key(override: str, key: str, expected: object) -> None:
    value = getattr(load(None, override).config.train, key)
    assert value == expected
    assert type(value) is type(expected)


def test_lists_are_yaml() -> None:
    overrides = ("data.mean=[1, 2.5, 3e0]", "model.patch_sizes=[[1, 4, 4], [1,2,2],[1,2,2], [1,2,2]]")
    config = load(None, *overrides).config
    assert config.data.mean == (1.0, 2.5, 3.0)
    assert config.model.patch_sizes[0] == (1, 4, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {lr: 1e-3}", ("train", "lr", 1e-3)),
        ("train: {weight_decay: 2}", ("train", "weight_decay", 2.0)),
        ("train: {decay_norms: no}", ("train", "decay_norms", False)),
        ("data: {classes: off}", ("data", "classes", "off")),
        ("data: {classes: 1:30}", ("data", "classes", "1:30")),
        ("data: {classes: 2020-01-01}", ("data", "classes", "2020-01-01")),
        ("data: {classes: ~}", ("data", "classes", None)),
        ("data: {classes: '~'}", ("data", "classes", "~")),
        ("data:\n  classes: |-\n    my list\n", ("data", "classes", "my list")),
        ("data.classes: mine", ("data", "classes", "mine")),
        ("data:\ntrain:\n  epochs: 3\n", ("train", "epochs", 3)),
        ("\ufefftrain: {epochs: 3}", ("train", "epochs", 3)),
    ],
)
def test_yaml_is_read_by_the_type_of_the_key_and_not_by_guessing(
    text: str, expected: tuple[str, str, object], write: Write
) -> None:
    section, key, value = expected
    found = getattr(getattr(load(write(text)).config, section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.clip.num_frames=abc", "data.clip.num_frames must be a whole number, got abc (from --set)"),
        ("data.clip.num_frames=1.5", "data.clip.num_frames must be a whole number, got 1.5 (from --set)"),
        ("data.clip.num_frames=true", "data.clip.num_frames must be a whole number, got true (from --set)"),
        ("data.clip.num_frames=010", "data.clip.num_frames must be a whole number, got 010 (from --set)"),
        ("data.clip.num_frames=", "data.clip.num_frames must be a whole number, got nothing (from --set)"),
        ("data.clip.num_frames=0", "data.clip.num_frames must be at least 1, got 0 (from --set)"),
        ("train.lr=fast", "train.lr must be a number, got fast (from --set)"),
        ("train.lr=nan", "train.lr must be a number, got nan (from --set)"),
        ("train.lr=1e999", "train.lr must be a number, got 1e999 (from --set)"),
        ("train.lr=1_0", "train.lr must be a number, got 1_0 (from --set)"),
        ("train.lr=yes", "train.lr must be a number, got yes (from --set)"),
        ("runtime.compile=1", "runtime.compile must be true or false, got 1 (from --set)"),
        (
            "runtime.precision=fp8",
            "runtime.precision must be one of auto, fp32, bf16, fp16, got fp8 (from --set)",
        ),
        ("runtime.device=null", "runtime.device must be text, got null (from --set)"),
        (
            "runtime.device=gpu",
            "runtime.device must be auto, cpu, cuda, cuda:INDEX, mps or xpu, got 'gpu' (from --set)",
        ),
        ("data.frame_rate=x", "data.frame_rate must be a number or null, got x (from --set)"),
        ("data.test.num_crops=2", "data.test.num_crops must be one of 1, 3, got 2 (from --set)"),
        ("data.mean=[1, 2]", "data.mean must be a list of 3 numbers, got [1, 2] (from --set)"),
        ("data.mean=1", "data.mean must be a list of 3 numbers, got 1 (from --set)"),
        (
            "model.patch_sizes=[[1, 2]]",
            "model.patch_sizes must be a list of lists of 3 whole numbers, got [[1, 2]] (from --set)",
        ),
        ("model.depths=[2, x]", "model.depths must be a list of whole numbers, got [2, x] (from --set)"),
        (
            "data.test.short_side=100",
            "data.test.short_side must be at least crop_size (224), got 100 (from --set)",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_key_what_is_allowed_and_its_source(override: str, message: str) -> None:
    assert message_of(None, override) == message


def test_a_very_long_value_is_cut_short_in_the_message() -> None:
    assert len(message_of(None, f"train.lr={'9' * 100_000}x")) < 250


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "data.clip.num_frames must be a whole number, got True (from flag)"),
        (2.0, "data.clip.num_frames must be a whole number, got 2.0 (from flag)"),
        ("16", "data.clip.num_frames must be a whole number, got '16' (from flag)"),
        (None, "data.clip.num_frames must be a whole number, got None (from flag)"),
    ],
)
def test_a_flag_has_the_type_of_its_key_already(value: object, message: str) -> None:
    assert message_of(None, flags={"data.clip.num_frames": value}) == message


def test_flags_of_every_type_arrive() -> None:
    flags = {
        "weights": "null",
        "runtime.compile": True,
        "train.lr": 1,
        "data.mean": (1, 2.0, 3),
        "data.test.num_crops": 3,
        "data.classes": None,
    }
    config = load(flags=flags).config
    assert (config.weights, config.runtime.compile, config.train.lr) == ("null", True, 1.0)
    assert (config.data.mean, config.data.test.num_crops, config.data.classes) == ((1.0, 2.0, 3.0), 3, None)


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("num_frames", "data.clip.num_frames"),
        ("data.num_frames", "data.clip.num_frames"),
        ("model.num_frames", "data.clip.num_frames"),
        ("data.clip.nun_frames", "data.clip.num_frames"),
        ("clip.num_frame", "data.clip.num_frames"),
        ("train.warmup", "train.warmup_epochs"),
        ("devcie", "runtime.device"),
        ("wieghts", "weights"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, known: str) -> None:
    assert message_of(None, f"{key}=1") == f"{key}: unknown key; did you mean {known!r}? (from --set)"


def test_a_key_like_no_other_says_where_all_are_listed() -> None:
    assert message_of(None, "momentum=1") == "momentum: unknown key; --print-config lists every key (from --set)"
    assert message_of(environ={"DUALFORMER_X__Y": "1"}) == (
        "environment variable DUALFORMER_X__Y names no key; --print-config lists every key"
    )


def test_a_section_is_not_a_value() -> None:
    assert message_of(None, "data.clip=3") == (
        "data.clip is a section, not a value; set one of its keys:"
        " data.clip.num_frames, data.clip.frame_interval, data.clip.sampling (from --set)"
    )


def test_a_set_without_an_equals_sign_is_shown_how_it_is_written() -> None:
    assert message_of(None, "runtime.seed") == (
        "--set 'runtime.seed' has no '='; write --set KEY=VALUE, as in data.clip.num_frames=16"
    )


def test_a_list_with_broken_yaml_names_the_key() -> None:
    assert message_of(None, "data.mean=[1, 2").startswith("data.mean (from --set), line 1: not valid YAML: ")


def test_other_variables_of_the_tool_and_of_others_are_no_keys() -> None:
    environ = {
        "DUALFORMER_CACHE": "/tmp",
        "DUALFORMER_OFFLINE": "1",
        "DUALFORMER_SOMETHING": "x",
        "OTHER_RUNTIME__DEVICE": "x",
        "DUALFORMER_RUNTIME__DEVICE": "",
    }
    assert load(environ=environ).config == RunConfig()


def test_variables_set_keys_of_every_depth() -> None:
    environ = {
        "DUALFORMER_WEIGHTS": "a.pth",
        "DUALFORMER_DATA__CLIP__NUM_FRAMES": "16",
        "DUALFORMER_DATA__STD": "[1,1,1]",
    }
    config = load(environ=environ).config
    assert (config.weights, config.data.clip.num_frames, config.data.std) == ("a.pth", 16, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["DUALFORMER_RUNTIME__DEVIC", "DUALFORMER_DEVICE", "DUALFORMER_MODEL__DEVICE"])
def test_a_misspelt_variable_names_the_nearest(name: str) -> None:
    assert message_of(environ={name: "cpu"}) == (
        f"environment variable {name} names no key; did you mean 'DUALFORMER_RUNTIME__DEVICE'?"
    )


def test_a_wrong_value_in_a_variable_names_the_variable() -> None:
    assert message_of(environ={"DUALFORMER_RUNTIME__SEED": "x"}) == (
        "runtime.seed must be a whole number, got x (from environment DUALFORMER_RUNTIME__SEED)"
    )


def test_a_misspelt_preset_names_the_nearest_and_all() -> None:
    known = ", ".join(known_presets())
    assert message_of("tinny") == f"preset 'tinny' not found; did you mean 'tiny'? Known presets: {known}"
    assert (
        message_of("nothing") == f"preset 'nothing' not found; a file's name must end in .yaml. Known presets: {known}"
    )
    assert message_of("@@@@") == f"preset '@@@@' not found; a file's name must end in .yaml. Known presets: {known}"


def test_a_parent_that_does_not_exist_is_named(write: Write) -> None:
    assert message_of(write("extends: tinny")).startswith("preset 'tinny' not found; did you mean 'tiny'?")


def test_a_preset_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, write: Write) -> None:
    missing = str(tmp_path / "missing.yaml")
    assert message_of(missing).startswith(f"preset {missing!r} not found; name a YAML")
    assert message_of(str(tmp_path)).startswith(f"preset {str(tmp_path)!r} cannot be read: is a directory")
    assert "x\\x00.yaml' cannot be read: " in message_of(write('extends: "x\\0.yaml"'))
    assert "x\\ud800.yaml' cannot be read: " in message_of(write('extends: "x\\ud800.yaml"'))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model:\n  depths: [1, 2\nruntime:\n", "line 3: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: b: c", "line 1: not valid YAML: mapping values are not allowed here"),
        ("runtime:\n\tseed: 1", "line 2: not valid YAML: found character '\\t' that cannot start any token"),
        ("runtime:\n  seed: \x07", "line 2: not valid YAML: character '\\x07' is not allowed"),
        ('weights: "\\UFFFFFFFF"', "line 1: not valid YAML: an escape names no character"),
        ("--- 1\n--- 2\n", "line 2: not valid YAML: but found another document"),
        ("- 1\n- 2\n", "line 1: a preset must map keys to values"),
        ("hello", "line 1: a preset must map keys to values"),
        ("\nmodel: tiny", "line 2: model is a section and must map keys to values"),
        ("runtime: {seed: {a: 1}}", "line 1: a mapping stands where a value is expected"),
        ("runtime:\n  seed: 1\n  seed: 1\n", "line 3: runtime.seed is set twice"),
        ("runtime: {seed: 1}\nruntime: {compile: no}", "line 2: runtime is set twice"),
        ("runtime.seed: 1\nruntime: {seed: 1}", "line 2: runtime.seed is set twice"),
        ("extends: tiny\nextends: small", "line 2: extends is set twice"),
        ("extends: [tiny, small]", "line 1: extends must name one preset or file, got [tiny, small]"),
        ("extends:", "line 1: extends must name one preset or file, got nothing"),
        ("[1]: 2", "line 1: a key must be a name, got [1]"),
        ("model: {depths: &a [*a]}", "line 1: an alias (*name) is not allowed; write the value again"),
        (
            "weights: !!python/name:os.system x",
            "line 1: the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed in a preset",
        ),
        ("weights: !mine x", "line 1: the tag '!mine' is not allowed in a preset"),
    ],
)
def test_a_broken_preset_names_its_file_and_line(text: str, problem: str, write: Write) -> None:
    path = write(text)
    assert message_of(path).startswith(f"{path}, {problem}")


def test_a_wrong_value_or_key_in_a_preset_names_its_file_and_line(write: Write) -> None:
    path = write("runtime:\n  seed: 1.5\n")
    assert message_of(path) == f"runtime.seed must be a whole number, got 1.5 (from {path}, line 2)"
    path = write('runtime:\n  seed: "1"\n')
    assert message_of(path) == f"runtime.seed must be a whole number, got '1' (from {path}, line 2)"
    path = write("runtime:\n  sed: 1\n")
    assert message_of(path) == f"runtime.sed: unknown key; did you mean 'runtime.seed'? (from {path}, line 2)"
    path = write("extends: tiny\nmodel:\n  dropout: 2\n")
    assert message_of(path) == f"model.dropout must be at least 0 and below 1, got 2.0 (from {path}, line 3)"


def test_a_wrong_value_counts_even_where_something_overrides_it(write: Write) -> None:
    assert "got fast" in message_of(write("train: {lr: fast}"), "train.lr=1")


def test_a_file_that_is_no_text_is_refused(write: Write) -> None:
    path = write(b"runtime: \xff")
    assert message_of(path) == f"preset {path!r} is not UTF-8 text: byte 9 is 0xff"


def test_a_huge_file_is_refused_unread(write: Write) -> None:
    path = write(b"#" * 70_000)
    assert message_of(path) == f"preset {path!r} is larger than 65536 bytes; a preset is a short YAML file"


def test_a_billion_laughs_are_refused(write: Write) -> None:
    laughs = "&a0 [1, 1]"
    for n in range(1, 40):
        laughs = f"&a{n} [{laughs}, *a{n - 1}]"
    path = write(f"model:\n  depths: {laughs}\n")
    assert message_of(path) == f"{path}, line 2: an alias (*name) is not allowed; write the value again"


@pytest.mark.parametrize("depth", [50, 300, 1000, 30_000])
def test_deep_nesting_is_an_error_and_no_crash(depth: int, write: Write) -> None:
    path = write("model: {depths: " + "[" * depth + "]" * depth + "}")
    assert message_of(path).startswith(
        (f"{path}, line 1: not usable: nested too deeply", "model.depths must be a list")
    )


@given(text=st.text(max_size=80) | st.text(alphabet="modelruntimeseedextends: \n-[]{}&*!|>'\"#%@`,?~", max_size=80))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_as_a_preset_is_a_config_or_a_config_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    with suppress(ConfigError):
        load(str(path))


def stages() -> st.SearchStrategy[ModelConfig]:
    sizes = st.integers(1, 64)
    size3 = st.tuples(sizes, sizes, sizes)

    @st.composite
    def model(draw: st.DrawFn) -> ModelConfig:
        count = draw(st.integers(1, 5))
        heads = draw(st.lists(sizes, min_size=count, max_size=count))
        widths = draw(st.lists(sizes, min_size=count, max_size=count))
        return ModelConfig(
            embed_dims=tuple(head * width for head, width in zip(heads, widths, strict=True)),
            num_heads=tuple(heads),
            depths=tuple(draw(st.lists(sizes, min_size=count, max_size=count))),
            patch_sizes=tuple(draw(st.lists(size3, min_size=count, max_size=count))),
            window_size=draw(size3),
            mlp_ratio=draw(positive_floats()),
            dropout=draw(st.floats(0, 1, exclude_max=True)),
            token_head=draw(st.booleans()),
        )

    return model()


def positive_floats() -> st.SearchStrategy[float]:
    return st.floats(0, exclude_min=True, allow_infinity=False)


def configs() -> st.SearchStrategy[RunConfig]:
    counts = st.integers(1, 10**30)
    texts = st.none() | st.text() | st.sampled_from(["null", "~", "", "no", "1e3", "010", "a: b", " x ", "# y", "a\nb"])
    colours = st.tuples(*[positive_floats()] * 3)
    views = st.builds(ViewsConfig, num_clips=counts, num_crops=st.sampled_from([1, 3]), short_side=st.just(10**30))
    data = st.builds(
        DataConfig,
        classes=texts,
        clip=st.builds(ClipConfig, num_frames=counts, sampling=st.sampled_from(["interval", "segments"])),
        crop_size=counts,
        antialias=st.booleans(),
        mean=colours,
        std=colours,
        test=views,
        validation=views,
        frame_rate=st.none() | positive_floats(),
    )
    train = st.builds(TrainConfig, lr=st.floats(0, 1, exclude_min=True), init_from=texts)
    devices = st.sampled_from(["auto", "cpu", "cuda", "cuda:3"])
    runtime = st.builds(RuntimeConfig, device=devices, seed=st.integers(0, 2**32 - 1))
    return st.builds(RunConfig, weights=texts, model=stages(), data=data, train=train, runtime=runtime)


@given(config=configs(), with_origins=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_config_survives_the_trip_to_yaml_and_back(config: RunConfig, with_origins: bool, tmp_path: Path) -> None:
    origins = dict.fromkeys(load().origins, "preset 'a\n\x07\u2028#: b'") if with_origins else None
    path = tmp_path / "trip.yaml"
    path.write_text(to_yaml(config, origins), encoding="utf-8", newline="")
    assert load(str(path)).config == config


def test_yaml_lists_every_key_with_where_its_value_comes_from() -> None:
    resolved = load("k400-tiny", "runtime.seed=3", flags={"weights": "a b.pth"})
    text = to_yaml(resolved.config, resolved.origins)
    assert "\n  seed: 3  # from --set\n" in text
    assert "\n  classes: kinetics400  # from preset k400-tiny\n" in text
    assert "\n    num_frames: 32  # from default\n" in text
    assert text.startswith("weights: a b.pth  # from flag\nmodel:\n")
    assert text.count("# from ") == len(resolved.origins)
    assert "#" not in to_yaml(resolved.config)


def test_yaml_is_read_alike_by_others() -> None:
    import yaml

    config = replace(RunConfig(), weights="no", train=TrainConfig(lr=1e-05, init_from="010"))
    read = yaml.safe_load(to_yaml(config))
    assert (read["weights"], read["train"]["lr"], read["train"]["init_from"]) == ("no", 1e-05, "010")
    assert read["model"]["patch_sizes"][0] == [2, 4, 4]


def test_resolving_a_preset_imports_neither_torch_nor_numpy_and_no_yaml_without_one() -> None:
    code = (
        "import sys; from dualformer_cli.config.load import known_presets, load_config;"
        "known_presets(); load_config(None, overrides=['runtime.seed=1'], environ={});"
        "assert not {'torch', 'numpy', 'yaml', 'av'} & set(sys.modules);"
        "load_config('base', environ={}); assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_key_of_an_older_recipe_in_a_checkpoint_is_left_out_and_no_other() -> None:
    text = "train: {save_every_steps: 500, lr: 0.25}\n"
    assert load_config("old.pt", text=text, environ={}).config.train.lr == 0.25
    with pytest.raises(ConfigError, match=r"model\.depth: unknown key"):
        load_config("old.pt", text="model: {depth: 3}\n", environ={})


def test_the_values_of_a_recipe_in_a_checkpoint_win_over_what_it_extends() -> None:
    parent = load_config("k400-tiny", environ={})
    found = load_config("old.pt", text="extends: k400-tiny\ntrain: {warmup_epochs: 7}\n", environ={})
    assert (parent.config.train.warmup_epochs, found.config.train.warmup_epochs) == (3, 7)
    assert (found.config.data, found.config.model) == (parent.config.data, parent.config.model)
    assert found.origins["train.warmup_epochs"] == "preset old.pt"
