"""Multiply-adds, parameters and latency as text."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from dualformer_cli.documents.flops import Flops, Latency, ModuleCost
from dualformer_cli.outputs.flops import print_flops

pytestmark = pytest.mark.usefixtures("_plain_environment")


FLOPS = Flops(
    model="base",
    num_classes=600,
    input=(3, 32, 224, 224),
    views=4,
    multiply_adds_per_view=1_072_345_678_901,
    multiply_adds_per_video=4_289_382_715_604,
    parameters_backbone=86_250_000,
    parameters=86_865_240,
)


def test_flops_show_what_is_per_view_and_what_per_video() -> None:
    stream = io.StringIO()
    print_flops(FLOPS, stream=stream)
    assert stream.getvalue().splitlines() == [
        "model          base, 600 classes",
        "input          3 x 32 x 224 x 224",
        "multiply-adds  1,072.346 G per view",
        "               4,289.383 G per video (4 views)",
        "parameters     86.87 M",
        "               86.25 M without the classifier",
    ]


def test_flops_by_module_keep_the_end_of_long_names_and_fit() -> None:
    modules = (
        ModuleCost(module="stages.2.blocks.17.attention.pyramid", multiply_adds=536_172_839_450, parameters=999_999),
        ModuleCost(module="classifier", multiply_adds=0, parameters=12),
    )
    stream = io.StringIO()
    print_flops(replace(FLOPS, by_module=modules), stream=stream, width=40)
    facts, _, table = (part.splitlines() for part in stream.getvalue().partition("\n\n"))
    assert max(map(len, facts)) <= 40
    assert table[0].split() == ["module", "mult-adds", "share", "params"]
    assert re.fullmatch(r"….*pyramid +536\.2 G +50\.0% +1\.000 M", table[1])
    assert re.fullmatch(r"classifier +0 +0\.0% +12", table[2])
    assert max(map(len, table)) <= 40


def test_flops_show_the_latency_that_was_measured() -> None:
    stream = io.StringIO()
    latency = Latency(
        device="cpu",
        precision="fp32",
        compiled=False,
        num_threads=2,
        batch_size=4,
        num_runs=20,
        median_ms=12.34567,
        p20_ms=11.0,
        p80_ms=13.0,
        clips_per_second=324.0001,
    )
    print_flops(replace(FLOPS, latency=latency), stream=stream)
    assert stream.getvalue().splitlines()[7:] == [
        "latency",
        "  device  cpu, fp32, 2 threads",
        "  median  12.35 ms for 4 clips; 11 to 13 ms from the 20th to the 80th percentile of 20 runs",
        "  speed   324 clips/s",
    ]
    stream = io.StringIO()
    print_flops(replace(FLOPS, latency=replace(latency, compiled=True, batch_size=1)), stream=stream, width=40)
    assert stream.getvalue().splitlines()[-5:] == [
        "  device  cpu, fp32, compiled, 2 threads",
        "  median  12.35 ms for 1 clip; 11 to 13",
        "          ms from the 20th to the 80th",
        "          percentile of 20 runs",
        "  speed   324 clips/s",
    ]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.000 K"),
        (12_345, "12.35 K"),
        (999_960, "1.000 M"),
        (67_300_000_000, "67.30 G"),
        (99_996_000_000, "100.0 G"),
        (4_289_382_715_604, "4,289 G"),
    ],
)
def test_counts_keep_four_digits_and_stop_at_giga(count: int, expected: str) -> None:
    stream = io.StringIO()
    print_flops(replace(FLOPS, parameters=count), stream=stream)
    assert f"parameters     {expected}\n" in stream.getvalue()
