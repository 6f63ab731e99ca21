"""The shipped catalogue is complete and sound, and a file of the user's can replace any of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualformer_cli.data.catalogue import Catalogue, load_catalogue
from dualformer_cli.errors import ConfigError, DownloadError

PUBLISHED_TOP1 = {
    "k400-tiny": 79.5,
    "k400-small": 80.6,
    "k400-base": 81.1,
    "k600-base": 85.2,
    "diving48-small": 81.8,
    "hmdb51-small": 76.4,
    "ucf101-small": 97.5,
}
# Parameters of the backbones, and channels before the classifier.
TINY, SMALL, BASE = (21_767_360, 512), (48_908_064, 768), (86_837_632, 1024)
# With 16 frames the pooling convolutions of the tiny backbone are smaller: fine ones by half on stages 0, 1 and (five
# times) 2, second coarse ones from 4 to 2 frames on stages 0 and 1.
TINY_16_FRAMES = (TINY[0] - 64 * 64 - 64 * 8 - 128 * 16 - 128 * 2 - 5 * 256 * 4, 512)
SIZES = {
    "k400-tiny": (TINY, 400),
    "k400-small": (SMALL, 400),
    "k400-base": (BASE, 400),
    "k600-base": (BASE, 600),
    "diving48-small": (SMALL, 48),
    "hmdb51-small": (SMALL, 51),
    "ucf101-small": (TINY_16_FRAMES, 101),
}


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue({})


def test_the_seven_published_weights_are_there_with_their_top1(shipped: Catalogue) -> None:
    assert {name: entry.top1 for name, entry in shipped.weights.items()} == PUBLISHED_TOP1


@pytest.mark.parametrize("name", PUBLISHED_TOP1)
def test_a_file_is_at_least_as_large_as_its_parameters(shipped: Catalogue, name: str) -> None:
    (backbone, channels), num_classes = SIZES[name]
    assert shipped.weights[name].minimum_bytes == 4 * (backbone + (channels + 1) * num_classes)


def test_every_entry_agrees_with_itself(shipped: Catalogue) -> None:
    for name, entry in shipped.weights.items():
        assert entry.browser_url == f"https://drive.google.com/file/d/{entry.drive_id}/view?usp=sharing"
        assert entry.file_name == f"{name}.pth"
        assert entry.sha256 is None
        assert entry.licence
    assert len({entry.drive_id for entry in shipped.weights.values()}) == 7


def test_every_preset_with_weights_exists(shipped: Catalogue) -> None:
    presets = Path(__file__).parents[2] / "presets"
    assert [name for name in shipped.weights if not (presets / f"{name}.yaml").is_file()] == []


def test_a_source_knows_both_drive_addresses(shipped: Catalogue) -> None:
    source = shipped.source("k400-tiny")
    assert source.url == (
        "https://drive.usercontent.google.com/download?id=1dvG6vjC7udHTwTaqmOAfn6U3HNs3T-QF&export=download&confirm=t"
    )
    assert source.drive_page == "https://drive.google.com/uc?id=1dvG6vjC7udHTwTaqmOAfn6U3HNs3T-QF&export=download"
    assert source.kind == "checkpoint"


@pytest.mark.parametrize("name", ["kinetics400", "UCF101", "kinetics700_2020"])
def test_a_dataset_is_plainly_not_there_yet(shipped: Catalogue, name: str) -> None:
    message = f"'{name}' is a dataset, and datasets are not in this version yet. Presets with weights: k400-tiny, "
    with pytest.raises(DownloadError, match=re.escape(message)):
        shipped.entry(name)


def test_an_unknown_name_gets_the_nearest_one(shipped: Catalogue) -> None:
    known = ", ".join(PUBLISHED_TOP1)
    message = f"no published weights for 'k400-tinny'; did you mean 'k400-tiny'? Presets that have some: {known}"
    with pytest.raises(DownloadError, match=f"^{re.escape(message)}$"):
        shipped.entry("k400-tinny")
    with pytest.raises(DownloadError, match=re.escape("no published weights for '@'. Presets that have some: ")):
        shipped.entry("@")


def overridden(tmp_path: Path, content: Any) -> Catalogue:
    path = tmp_path / "mirror.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_catalogue({"DUALFORMER_CATALOGUE": str(path)})


def test_a_mirror_replaces_only_what_it_names(tmp_path: Path, shipped: Catalogue) -> None:
    template = "http://mirror.local/{id}"
    catalogue = overridden(
        tmp_path,
        {
            "google_drive": {"direct": template},
            "weights": {"k400-tiny": {"url": "https://example.org/tiny.pth", "sha256": "a" * 64}},
        },
    )
    tiny, small = catalogue.source("k400-tiny"), catalogue.source("k400-small")
    assert (tiny.url, tiny.drive_page, tiny.sha256) == ("https://example.org/tiny.pth", None, "a" * 64)
    assert tiny.minimum_bytes == shipped.weights["k400-tiny"].minimum_bytes
    assert small.url == f"http://mirror.local/{shipped.weights['k400-small'].drive_id}"
    assert small.drive_page == shipped.source("k400-small").drive_page
    assert catalogue.weights["k600-base"] == shipped.weights["k600-base"]


def test_own_weights_can_be_added(tmp_path: Path) -> None:
    mine = {"url": "https://e.org/m.pth", "browser_url": "https://e.org", "file_name": "m.pth", "minimum_bytes": 0}
    assert overridden(tmp_path, {"weights": {"mine": mine}}).source("mine").url == "https://e.org/m.pth"


ENTRY = {"url": "https://e.org/m.pth", "browser_url": "https://e.org", "file_name": "m.pth", "minimum_bytes": 0}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: [", "is not YAML: "),
        ("!!python/object/apply:os.system [true]", "is not YAML: "),
        ("", "the file must be a mapping, got NoneType"),
        ("[]", "the file must be a mapping, got list"),
        ({"weight": {}}, "unknown key 'weight'; did you mean 'weights'? Known keys: google_drive, weights, datasets"),
        ({"weights": []}, "weights must be a mapping, got list"),
        (
            {"google_drive": {"page": "http://x/"}},
            "google_drive.page must be an address with {id} in it, got 'http://x/'",
        ),
        ({"google_drive": {"pages": "x"}}, "unknown key 'pages'; did you mean 'page'? Known keys: direct, page"),
        ({"datasets": "ucf101"}, "datasets must be a list of names, got 'ucf101'"),
        ({"weights": {"mine": 5}}, "weights.mine must be a mapping, got 5"),
        ({"weights": {"mine": {"url": "u"}}}, "weights.mine needs browser_url, file_name, minimum_bytes"),
        (
            {"weights": {"k400-tiny": {"top2": 1}}},
            "weights.k400-tiny has an unknown key 'top2'; did you mean 'top1'? Known keys: browser_url, ",
        ),
        ({"weights": {"k400-tiny": {"minimum_bytes": "1"}}}, "minimum_bytes has a value of the wrong type: '1'"),
        ({"weights": {"k400-tiny": {"minimum_bytes": True}}}, "minimum_bytes has a value of the wrong type: True"),
        ({"weights": {"k400-tiny": {"browser_url": None}}}, "browser_url has a value of the wrong type: None"),
        ({"weights": {"k400-tiny": {"sha256": "AB"}}}, "sha256 must be 64 lower-case hexadecimal digits, got 'AB'"),
        (
            {"weights": {"m": {**ENTRY, "file_name": "../m"}}},
            "weights.m: file_name must be a bare file name, got '../m'",
        ),
        ({"weights": {"m": {**ENTRY, "file_name": ".."}}}, "file_name must be a bare file name, got '..'"),
        ({"weights": {"m": {**ENTRY, "url": None}}}, "weights.m: one of url and drive_id must be given"),
    ],
)
def test_a_mistake_in_the_users_file_is_named(tmp_path: Path, content: Any, problem: str) -> None:
    path = tmp_path / "mirror.yaml"
    with pytest.raises(ConfigError, match=f"^DUALFORMER_CATALOGUE={re.escape(str(path))}: .*{re.escape(problem)}"):
        overridden(tmp_path, content)


def test_a_users_file_that_is_missing_is_named() -> None:
    message = "DUALFORMER_CATALOGUE=/no/such.yaml: cannot be read: No such file or directory; name a YAML file or unset"
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_catalogue({"DUALFORMER_CATALOGUE": "/no/such.yaml"})
