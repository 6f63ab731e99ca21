"""The shipped catalogue is complete and sound, and a file of the user's can replace any of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualformer_cli.data.datasets import catalogue as catalogue_module
from dualformer_cli.data.datasets.annotations import FORMATS
from dualformer_cli.data.datasets.catalogue import Catalogue, PublishedFile, flip_labels, load_catalogue
from dualformer_cli.data.fetch.weights import published_source
from dualformer_cli.data.lists.class_lists import load_class_names, shipped_class_lists
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
    presets = Path(__file__).parents[3] / "presets"
    assert [name for name in shipped.weights if not (presets / f"{name}.yaml").is_file()] == []


def test_a_source_knows_both_drive_addresses(shipped: Catalogue) -> None:
    source = published_source(shipped, "k400-tiny")
    assert source.url == (
        "https://drive.usercontent.google.com/download?id=1dvG6vjC7udHTwTaqmOAfn6U3HNs3T-QF&export=download&confirm=t"
    )
    assert source.drive_page == "https://drive.google.com/uc?id=1dvG6vjC7udHTwTaqmOAfn6U3HNs3T-QF&export=download"
    assert source.kind == "checkpoint"


@pytest.mark.parametrize("name", ["kinetics400", "UCF101", "kinetics700_2020"])
def test_a_dataset_has_no_weights_of_its_own(shipped: Catalogue, name: str) -> None:
    message = f"'{name}' is a dataset, not a preset. Presets with published weights: k400-tiny, "
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
    tiny, small = published_source(catalogue, "k400-tiny"), published_source(catalogue, "k400-small")
    assert (tiny.url, tiny.drive_page, tiny.sha256) == ("https://example.org/tiny.pth", None, "a" * 64)
    assert tiny.minimum_bytes == shipped.weights["k400-tiny"].minimum_bytes
    assert small.url == f"http://mirror.local/{shipped.weights['k400-small'].drive_id}"
    assert small.drive_page == published_source(shipped, "k400-small").drive_page
    assert catalogue.weights["k600-base"] == shipped.weights["k600-base"]


def test_a_dataset_is_one_file_of_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Catalogue) -> None:
    package = Path(catalogue_module.__file__).parent
    shutil.copytree(package, tmp_path / "datasets")
    facts = (package / "facts" / "jester.yaml").read_text().replace("[20bn-jester]", "[]")
    (tmp_path / "datasets" / "facts" / "antics.yaml").write_text(facts.replace("Jester", "Antics"))
    monkeypatch.setattr(catalogue_module.resources, "files", lambda _: tmp_path / "datasets")
    catalogue = load_catalogue({})
    assert list(catalogue.datasets) == [*shipped.datasets, "antics"]
    assert (catalogue.datasets["antics"].title, catalogue.datasets["antics"].num_classes) == ("Antics", 27)


def test_nothing_is_published_of_files_that_a_mirror_packed_anew(tmp_path: Path) -> None:
    for published in (None, {"UCF101.rar": None, "UCF101_videos.zip": None}):
        videos = overridden(tmp_path, file(published=published)).datasets["ucf101"].files["videos"]
        assert videos.published_of("UCF101.rar") == PublishedFile()


def test_own_weights_can_be_added(tmp_path: Path) -> None:
    mine = {"url": "https://e.org/m.pth", "browser_url": "https://e.org", "file_name": "m.pth", "minimum_bytes": 0}
    assert published_source(overridden(tmp_path, {"weights": {"mine": mine}}), "mine").url == "https://e.org/m.pth"


def file(**changes: Any) -> dict[str, Any]:
    """Change the entry of UCF101's videos."""
    return {"datasets": {"ucf101": {"files": {"videos": changes}}}}


ENTRY = {"url": "https://e.org/m.pth", "browser_url": "https://e.org", "file_name": "m.pth", "minimum_bytes": 0}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: [", "is not YAML: "),
        ("!!python/object/apply:os.system [true]", "is not YAML: "),
        ({"google_drive": {"page": 7}}, "google_drive.page must be text, got 7"),
        ("", "the file must be a mapping, got NoneType"),
        ("[]", "the file must be a mapping, got list"),
        (
            {"weight": {}},
            "unknown key 'weight'; did you mean 'weights'? Known keys: mirrors, google_drive, weights, datasets",
        ),
        ({"weights": []}, "weights must be a mapping, got list"),
        (
            {"google_drive": {"page": "http://x/"}},
            "google_drive.page must be an address with {id} in it, got 'http://x/'",
        ),
        ({"google_drive": {"pages": "x"}}, "unknown key 'pages'; did you mean 'page'? Known keys: direct, page"),
        ({"datasets": "ucf101"}, "datasets must be a mapping, got str"),
        ({"mirrors": {"http://a": 5}}, "mirrors.http://a must be text, got 5"),
        ({"datasets": {"ucf101": {"splits": []}}}, "datasets.ucf101.splits must be a mapping, got list"),
        (
            {"datasets": {"ucf101": {"splits": {"val": "9"}}}},
            "datasets.ucf101.splits.val must be a whole number or null, got '9'",
        ),
        (
            {"datasets": {"ucf101": {"clases": []}}},
            "datasets.ucf101 has an unknown key 'clases'; did you mean 'classes'",
        ),
        ({"datasets": {"mine": {"title": "x"}}}, "datasets.mine needs homepage, metric, num_classes, classes, splits"),
        ({"datasets": {"ucf101": {"labels": "many"}}}, "labels must be one of single, multi, got 'many'"),
        ({"datasets": {"ucf101": {"flip_labels": [[1]]}}}, "flip_labels must be pairs of different classes"),
        ({"datasets": {"ucf101": {"flip_labels": [[1, 101]]}}}, "names a class that is not one of the 101"),
        ({"datasets": {"ucf101": {"videos_of": "ucf"}}}, "videos_of must be another dataset, got 'ucf'"),
        (file(into="../x"), "datasets.ucf101.files.videos: '../x' must stay inside the dataset's folder"),
        (file(strip="rgb"), "datasets.ucf101.files.videos.strip must be a list of texts, got 'rgb'"),
        (file(group="video"), "group must be one of annotations, videos, got 'video'"),
        (file(split="validation"), "split must be one of train, val, test or null, got 'validation'"),
        (file(url_list="x", place=["y"]), "only one of urls, url_list and place can be given"),
        (file(urls=[]), "one of urls, url_list and place must be given, or into and by_hand"),
        (file(into=None), "into must say where to unpack"),
        (file(nested=1), "nested must be true or false, got 1"),
        (file(about_gb=True), "about_gb must be a number or null, got True"),
        (file(md5="x"), "md5 must be 32 lower-case hexadecimal digits, got 'x'"),
        (file(urls=["http://x/UCF101TrainTestSplits-RecognitionTask.zip"]), "two that would be stored under the name"),
        ({"weights": {"mine": 5}}, "weights.mine must be a mapping, got 5"),
        ({"weights": {"mine": {"url": "u"}}}, "weights.mine needs browser_url, file_name, minimum_bytes"),
        (
            {"weights": {"k400-tiny": {"top2": 1}}},
            "weights.k400-tiny has an unknown key 'top2'; did you mean 'top1'? Known keys: browser_url, ",
        ),
        ({"weights": {"k400-tiny": {"minimum_bytes": "1"}}}, "minimum_bytes must be a whole number, got '1'"),
        ({"weights": {"k400-tiny": {"minimum_bytes": True}}}, "minimum_bytes must be a whole number, got True"),
        ({"weights": {"k400-tiny": {"browser_url": None}}}, "browser_url must be text, got None"),
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
    message = "DUALFORMER_CATALOGUE=/no/such.yaml: cannot be read: no such file or directory; name a YAML file or unset"
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_catalogue({"DUALFORMER_CATALOGUE": "/no/such.yaml"})


# Datasets.

NAMES = {
    *("hmdb51", "ucf101", "activitynet", "kinetics400", "kinetics600", "kinetics700", "kinetics700-2020", "sthv1"),
    *("sthv2", "diving48", "jester", "mit", "mmit", "hvu", "omnisource"),
}


def test_every_dataset_is_there_with_its_classes(shipped: Catalogue) -> None:
    assert set(shipped.datasets) == NAMES
    for name, entry in shipped.datasets.items():
        lengths = [len(load_class_names(source)) for source in entry.classes]
        assert not lengths or sum(lengths) == entry.num_classes, name
        assert entry.homepage.startswith("http")
        assert entry.metric
        assert entry.splits
        assert {"annotations", "videos"} <= {file.group for file in entry.files.values()} or name in (
            "kinetics700",  # its videos are those of another
            "mit",  # one archive holds both
            "mmit",
        )


def test_every_shipped_class_list_belongs_to_a_dataset(shipped: Catalogue) -> None:
    of_datasets = {source for entry in shipped.datasets.values() for source in entry.classes}
    assert of_datasets | {"camera_motion"} == set(shipped_class_lists())


def test_no_name_stands_for_two_datasets(shipped: Catalogue) -> None:
    names = [name for key, entry in shipped.datasets.items() for name in (key, *entry.aliases)]
    assert len(set(names)) == len(names)
    assert not set(names) & set(shipped.weights)
    assert shipped.dataset_name("SSv2") == "sthv2"
    assert shipped.dataset_name("nothing") is None


def test_weights_name_the_dataset_that_they_were_trained_on(shipped: Catalogue) -> None:
    for entry in shipped.weights.values():
        assert entry.dataset in shipped.datasets


def test_what_has_no_address_says_what_to_do(shipped: Catalogue) -> None:
    for entry in shipped.datasets.values():
        for file in entry.files.values():
            assert not file.is_by_hand or file.by_hand


def test_readers_of_annotations_are_known(shipped: Catalogue) -> None:
    for entry in shipped.datasets.values():
        assert entry.annotation_format is None or entry.annotation_format in FORMATS


def test_a_mirror_of_a_host_replaces_the_longest_beginning(tmp_path: Path) -> None:
    mirrors = {"https://s3.amazonaws.com/": "http://a/", "https://s3.amazonaws.com/kinetics/400": "http://b"}
    catalogue = overridden(tmp_path, {"mirrors": mirrors})
    assert catalogue.address("https://s3.amazonaws.com/kinetics/400/x y") == "http://b/x y"
    assert catalogue.address("https://s3.amazonaws.com/kinetics/600/x") == "http://a/kinetics/600/x"
    assert catalogue.address("https://other.org/") == "https://other.org/"


def test_an_address_of_another_kind_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    changes = {"kinetics400": {"files": {"val": {"urls": ["http://x/all.tar"]}}}}
    entry = overridden(tmp_path, {"datasets": changes}).datasets["kinetics400"].files["val"]
    assert (entry.urls, entry.url_list, entry.into) == (("http://x/all.tar",), None, "videos_val")


def test_flip_labels_pair_classes_that_differ_by_direction() -> None:
    assert flip_labels() == {
        "camera_motion": ((1, 2), (7, 8)),
        "jester": ((0, 1), (6, 7), (14, 15)),
        "sthv1": ((2, 4), (30, 41), (52, 66)),
        "sthv2": ((86, 87), (93, 94), (166, 167)),
    }
    for source, pairs in flip_labels().items():
        names = load_class_names(source)
        for first, second in pairs:
            assert mirrored_name(names[first]) == names[second].lower().replace("r-c", "rc")


def mirrored_name(name: str) -> str:
    mirror = {"left": "right", "clockwise": "counterclockwise"}
    mirror |= {other: word for word, other in mirror.items()}
    return " ".join(mirror.get(word, word) for word in name.lower().replace("r-c", "rc").split())


# Typed from the public sources that the files of facts name, not from these files: a digit that differs is a typing
# error in one of the two.
PUBLISHED = """
hmdb51 test_train_splits.rar md5 15e67781e70dcfbdce2d7dbb9b3344b5
hmdb51 test_train_splits.rar sha256 229c94f845720d01eb3946d39f39292ea962d50a18136484aa47c1eba251d2b7
hmdb51 hmdb51_org.rar md5 517d6f1f19f215c45cdd4d25356be1fb
hmdb51 hmdb51_org.rar sha256 9e714a0d8b76104d76e932764a7ca636f929fff66279cda3f2e326fa912a328e
ucf101 UCF101TrainTestSplits-RecognitionTask.zip num_bytes 113943
ucf101 UCF101TrainTestSplits-RecognitionTask.zip sha256 5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27
ucf101 UCF101_videos.zip num_bytes 6960400115
ucf101 UCF101_videos.zip sha256 dabf56f573cd19c79e096563529fec8126a2a34e18e10c72eb621dd687532b0d
ucf101 UCF101.rar sha256 ca8dfadb4c891cb11316f94d52b6b0ac2a11994e67a0cae227180cd160bd8e55
activitynet v1-2_test.tar.gz md5 b06ca628443da1c1389c69b2feac6ca2
activitynet v1-2_train.tar.gz md5 8510ed0d8ae399b1bda399fd117e7406
activitynet v1-2_val.tar.gz md5 34f0d2b867f188883259b607e68c830f
activitynet v1-3_test.tar.gz md5 ec218c66991d776ad0ff826c0b43836d
activitynet v1-3_train_val.tar.gz md5 eb0829a2eae2e3f254a0fcb64c6583c4
"""


def test_every_published_size_and_hash_is_that_of_its_sources() -> None:
    found = set()
    for name, entry in load_catalogue({}).datasets.items():
        for file in entry.files.values():
            assert (file.num_bytes, file.md5, file.sha256) == (None, None, None)
            for file_name, published in file.published.items():
                assert published is not None
                assert published.sources
                addresses = [url.rpartition("/")[2] for url in file.urls]
                assert file_name in (*addresses, *(one for place in file.place for one in place.split("|")))
                facts = {key: getattr(published, key) for key in ("num_bytes", "md5", "sha256")}
                found |= {f"{name} {file_name} {key} {value}" for key, value in facts.items() if value is not None}
    assert found == set(PUBLISHED.strip().split("\n"))
