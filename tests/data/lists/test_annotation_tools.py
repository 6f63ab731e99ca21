"""Files of annotation tools, as these write them: what is listed, and what is refused.

The samples follow the tools' documentation and source: ActivityNet's evaluation code, Label Studio's "Export" page and
tags, FiftyOne's "Exporting datasets", VIA's `_via_import_export.js`, CVAT's "XML annotation format".
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from dualformer_cli.data.lists.folder_tables import FileFinder
from dualformer_cli.data.lists.labelled_lists import read_lists
from dualformer_cli.data.lists.manifest import Manifest, read_manifest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.prepare import PrepareRequest, _read_content
from dualformer_cli.video.parts import WHOLE, Part


def seconds(start: float, end: float) -> Part:
    return Part(start_seconds=start, end_seconds=end)


@pytest.fixture
def export(tmp_path: Path) -> Any:
    """The function export(name, content, *videos) -> path of a file with this content, beside these videos."""

    def write(name: str, content: Any, *videos: str) -> str:
        for video in videos:
            path = tmp_path / video
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(tmp_path / name)

    return write


def rows(manifest: Manifest) -> list[tuple[Any, ...]]:
    """Return (file relative to the list, names of the labels, part) of each row."""
    assert manifest.class_names is not None
    names = manifest.class_names
    return [
        (file.removeprefix(manifest.root + "/"), tuple(names[label] for label in sample.labels), sample.part)
        for file, sample in zip(manifest.files, manifest.samples, strict=True)
    ]


ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [],
    "database": {
        "--0edUL8zmA": {
            "duration": 92.18,
            "subset": "training",
            "resolution": "1280x720",
            "url": "https://www.youtube.com/watch?v=--0edUL8zmA",
            "annotations": [
                {"segment": [33.24, 86.94], "label": "Dodgeball"},
                {"segment": [10, 12.5], "label": "Running"},
            ],
        },
        "uqiMw7tQ1Cc": {
            "duration": 55.15,
            "subset": "training",
            "url": "",
            "annotations": [{"segment": [0.28, 55.15], "label": "Running"}],
        },
    },
}


def test_activitynet_has_parts_with_times(export: Any) -> None:
    source = export("activity_net.v1-3.min.json", ACTIVITYNET, "v_--0edUL8zmA.mp4", "uqiMw7tQ1Cc.mkv")
    assert rows(read_manifest(source)) == [
        ("v_--0edUL8zmA.mp4", ("Dodgeball",), seconds(33.24, 86.94)),
        ("v_--0edUL8zmA.mp4", ("Running",), seconds(10, 12.5)),
        ("uqiMw7tQ1Cc.mkv", ("Running",), seconds(0.28, 55.15)),
    ]


def test_a_video_of_activitynet_may_lack_annotations(export: Any) -> None:
    """Those of a test set do, in lists that others derive."""
    said = {"one": {"subset": ""}, "two": {"annotations": [{"label": "Dance", "segment": [1, 2]}]}}
    manifest = read_manifest(export("a.json", {"database": said}))
    assert rows(manifest) == [("one", (), Part()), ("two", ("Dance",), Part(start_seconds=1.0, end_seconds=2.0))]


def test_the_splits_of_activitynet_are_those_of_prepare(export: Any) -> None:
    database = {**ACTIVITYNET["database"]}  # type: ignore[dict-item]
    database["val"] = {"subset": "validation", "annotations": [{"segment": [1, 2], "label": "Running"}]}
    source = export("a.json", {"database": database}, "v_--0edUL8zmA.mp4", "uqiMw7tQ1Cc.mp4", "val.mp4")
    content = read_lists([source])
    assert [(video.path, video.split, len(video.parts)) for video in content.videos] == [
        ("v_--0edUL8zmA.mp4", "train", 2),
        ("uqiMw7tQ1Cc.mp4", "train", 1),
        ("val.mp4", "val", 1),
    ]
    with pytest.raises(DualFormerError, match=r"holds several splits \(training, validation\); dualformer prepare"):
        read_manifest(source)


def test_json_of_kinetics_names_cut_clips(export: Any) -> None:
    said = {"annotations": {"label": "archery", "segment": [3.7, 13.7]}, "duration": 10.0, "subset": "train", "url": ""}
    source = export(
        "train.json",
        {"abc": said, "xyz": {**said, "annotations": {"label": "yoga", "segment": [0, 10]}}},
        "abc_000003_000013.mp4",
        "xyz.webm",
    )
    assert rows(read_manifest(source)) == [
        ("abc_000003_000013.mp4", ("archery",), WHOLE),
        ("xyz.webm", ("yoga",), WHOLE),
    ]


LABEL_STUDIO = [
    {
        "id": 1,
        "annotations": [
            {"id": 3, "was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["wrong"]}}]},
            {
                "id": 4,
                "was_cancelled": False,
                "result": [
                    {
                        "value": {"ranges": [{"start": 1, "end": 50}], "timelinelabels": ["Moving"]},
                        "id": "x", "from_name": "timelineLabels", "to_name": "video", "type": "timelinelabels",
                    },
                    {
                        "value": {"ranges": [{"start": 51, "end": 51}], "timelinelabels": ["Still"]},
                        "id": "y", "from_name": "timelineLabels", "to_name": "video", "type": "timelinelabels",
                    },
                    {"value": {"labels": ["hand"], "sequence": []}, "type": "videorectangle", "to_name": "video"},
                    {"type": "relation", "from_id": "x", "to_id": "y", "direction": "right"},
                ],
            },
        ],
        "file_upload": "0123abcd-one.mp4",
        "data": {"video": "/data/upload/7/0123abcd-one.mp4"},
    },
    {
        "id": 2,
        "annotations": [{"result": [{"type": "choices", "value": {"choices": ["Still"]}, "from_name": "choice"}]}],
        "data": {"video": "/data/local-files/?d=clips%2Ftwo%20b.mp4"},
    },
    {
        "id": 5,
        "annotations": [
            {"result": [{"type": "labels", "value": {"start": 0.5, "end": 3.25, "channel": 0, "labels": ["Moving"]}}]}
        ],
        "data": {"video_url": "s3://bucket/deep/three.mp4"},
    },
]  # fmt: skip


def test_label_studio_has_choices_timelines_and_labels_with_times(export: Any) -> None:
    manifest = read_manifest(export("project.json", LABEL_STUDIO, "one.mp4", "clips/two b.mp4", "three.mp4"))
    assert rows(manifest) == [
        ("one.mp4", ("Moving",), Part(0, 50)),
        ("one.mp4", ("Still",), Part(50, 1)),
        ("clips/two b.mp4", ("Still",), WHOLE),
        ("three.mp4", ("Moving",), seconds(0.5, 3.25)),
    ]
    assert manifest.warnings[-1].endswith("2 results of other kinds (videorectangle, relation) left out")


LABEL_STUDIO_TABLE = """\
"action","annotation_id","annotator","created_at","id","lead_time","tl","updated_at","video"
"run",7,"a@example.com","2024-01-01T00:00:00Z",1,7.662,"","2024-01-01T00:00:00Z","/data/upload/1/0123abcd-one.mp4"
"",8,"1","2024-01-01T00:00:00Z",2,7.662,"[{""ranges"":[{""start"":11,""end"":20}],""timelinelabels"":[""sit""]}]",\
"2024-01-01T00:00:00Z","two.mp4"
"{""choices"":[""sit"",""run""]}",9,"1","2024-01-01T00:00:00Z",3,7.662,"","2024-01-01T00:00:00Z","three.mp4"
"""


@pytest.mark.parametrize("name", ["project.csv", "project.tsv"])
def test_label_studio_tables_have_its_tags_for_columns(export: Any, name: str) -> None:
    lines = csv.reader(io.StringIO(LABEL_STUDIO_TABLE))
    written = io.StringIO()
    csv.writer(written, delimiter="\t" if name.endswith("tsv") else ",", quoting=csv.QUOTE_ALL).writerows(lines)
    assert rows(read_manifest(export(name, written.getvalue(), "0123abcd-one.mp4", "two.mp4", "three.mp4"))) == [
        ("0123abcd-one.mp4", ("run",), WHOLE),
        ("two.mp4", ("sit",), Part(10, 10)),
        ("three.mp4", ("sit", "run"), WHOLE),
    ]


def test_columns_of_label_studio_without_quotes_say_what_was_cancelled(export: Any) -> None:
    source = export(
        "project.csv",
        "annotation_id,annotator,choice,created_at,id,lead_time,updated_at,video,was_cancelled\n"
        "4,1,Still,2024-01-01T00:00:00Z,1,3.5,2024-01-01T00:00:00Z,one.mp4,False\n"
        "5,1,,2024-01-01T00:00:00Z,2,3.5,2024-01-01T00:00:00Z,two.mp4,True\n",
        "one.mp4", "two.mp4",
    )  # fmt: skip
    assert rows(read_manifest(source)) == [("one.mp4", ("Still",), WHOLE)]


def test_label_studio_json_min_may_have_several_choices(export: Any) -> None:
    row = {"video": "one.mp4", "id": 1, "annotator": 1, "annotation_id": 4, "lead_time": 2.5, "created_at": "2024"}
    content = [{**row, "choice": {"choices": ["a", "b"]}}, {**row, "video": "two.mp4", "choice": "a"}]
    manifest = read_manifest(export("min.json", content, "one.mp4", "two.mp4"))
    assert manifest.is_multi_label
    assert rows(manifest) == [("one.mp4", ("a", "b"), WHOLE), ("two.mp4", ("a",), WHOLE)]


def test_fiftyone_finds_its_videos_in_data(export: Any) -> None:
    content = {
        "classes": ["swim", "run", "never"],
        "labels": {"one": 1, "two": "swim", "three": {"label": "run", "confidence": 0.5}},
    }
    source = export("labels.json", content, "data/one.mp4", "data/two.avi", "data/three.webm")
    manifest = read_manifest(source)
    assert manifest.class_names == ["swim", "run", "never"]
    assert rows(manifest) == [
        ("data/one.mp4", ("run",), WHOLE),
        ("data/two.avi", ("swim",), WHOLE),
        ("data/three.webm", ("run",), WHOLE),
    ]


def test_fiftyone_has_temporal_detections(export: Any) -> None:
    content = {
        "classes": None,
        "labels": {
            "one": [
                {"label": "meet", "timestamps": [0.5, 2.0]},
                {"label": "party", "support": [11, 20], "confidence": 0.9},
            ],
            "two": None,
        },
    }
    assert rows(read_manifest(export("labels.json", content, "data/one.mp4", "data/two.mp4"))) == [
        ("data/one.mp4", ("meet",), seconds(0.5, 2.0)),
        ("data/one.mp4", ("party",), Part(10, 10)),
        ("data/two.mp4", (), WHOLE),
    ]


VIA_CSV = """\
# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# Notes:
# - temporal coordinate of [1.349,2.741] denotes a temporal segment from time 1.346 sec. to 2.741 sec.
# SHAPE_ID = {"POINT":1,"RECTANGLE":2}
# FLAG_ID = {"ACTIVITY":1}
# ATTRIBUTE = {"1":{"aname":"TEMPORAL-SEGMENTS","anchor_id":"FILE1_Z2_XY0","type":4,"options":{}},\
"3":{"aname":"Kind","anchor_id":"FILE1_Z2_XY0","type":3,"options":{"0":"Title","1":"Chart"}}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
"1_j5sJvB9h","[""one.mp4""]",0,"[1.124,5.31493]","[]","{""1"":""_DEFAULT"",""3"":""1""}"
"1_zYQJk2sM","[""one.mp4""]",0,"[2.41892]","[2,162.262,176.21971,639.45,192.49481]","{""1"":""AOI""}"
"1_abc","[""videos/two.mp4""]",0,"[0,6.5]","[]","{""1"":""clapping""}"
"""


def test_via_has_segments(export: Any) -> None:
    manifest = read_manifest(export("via.csv", VIA_CSV, "one.mp4", "two.mp4"))
    assert rows(manifest) == [
        ("one.mp4", ("Chart",), seconds(1.124, 5.31493)),
        ("two.mp4", ("clapping",), seconds(0, 6.5)),
    ]
    assert "1 annotation of still frames and regions" in manifest.warnings[-1]


def test_via_projects_have_the_same(export: Any) -> None:
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1"]},
        "config": {},
        "attribute": {"1": {"aname": "TEMPORAL-SEGMENTS", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {}}},
        "file": {"1": {"fid": "1", "fname": "one.mp4", "type": 4, "loc": 1, "src": ""}},
        "metadata": {"-glfwaaX": {"vid": "1", "flg": 0, "z": [0.5, 6.5], "xy": [], "av": {"1": "break"}}},
        "view": {"1": {"fid_list": ["1"]}},
    }
    numbered = changed(content, "metadata", "-glfwaaX", "av", {"1": 3})
    assert read_manifest(export("numbered.json", numbered)).samples[0].labels == (3,)
    assert rows(read_manifest(export("via.json", content, "one.mp4"))) == [("one.mp4", ("break",), seconds(0.5, 6.5))]


VIA_BOXES = """\
# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# ATTRIBUTE = {"3":{"aname":"What","anchor_id":"FILE1_Z2_XY0","type":2,"options":{"0":"run","1":"jump","2":"sit"}}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata,,,
"1_a","[""one.mp4""]",0,"[0,2]","[]","{""3"":""0,1""}",,,
"1_b","[""one.mp4""]",0,"[2,3]","[]","{""3"":""2""}",,,
"""


def test_the_ticked_boxes_of_via_are_several_labels(export: Any) -> None:
    """The table was saved once more by a spreadsheet, which adds columns."""
    assert rows(read_manifest(export("via.csv", VIA_BOXES, "one.mp4"))) == [
        ("one.mp4", ("run", "jump"), seconds(0, 2)),
        ("one.mp4", ("sit",), seconds(2, 3)),
    ]


CVAT = """\
<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>5</id><name>my task</name><size>100</size><mode>{mode}</mode><overlap>5</overlap>
      <subset>Train</subset><start_frame>{start}</start_frame><stop_frame>99</stop_frame><frame_filter>{step}</frame_filter>
      <segments><segment><id>6</id><start>0</start><stop>99</stop><url>http://x</url></segment></segments>
      <labels><label><name>run</name></label></labels>
      <source>one.mp4</source>
    </task>
    <dumped>2024-01-01</dumped>
  </meta>
{body}
</annotations>
"""
TRACKS = """\
  <track id="0" label="run" source="manual">
    <box frame="0" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"></box>
    <box frame="9" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"></box>
    <box frame="10" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"></box>
    <box frame="20" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"></box>
    <box frame="24" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2"></box>
  </track>
"""


def test_cvat_tracks_are_the_frames_that_show_them(export: Any) -> None:
    source = export("annotations.xml", CVAT.format(mode="interpolation", start=0, step="", body=TRACKS), "one.mp4")
    manifest = read_manifest(source)
    assert rows(manifest) == [("one.mp4", ("run",), Part(0, 10)), ("one.mp4", ("run",), Part(20, 4))]
    assert manifest.warnings[-1].endswith("1 track taken as the parts of videos in which they are shown")


def test_cvat_tags_of_neighbouring_frames_are_a_part(export: Any) -> None:
    """Its frames are the video's: a task that starts at frame 10 and takes every second has 10, 12, 14, ..."""
    tagged = {16: "run", 18: "run", 20: "run", 28: "run", 30: "walk"}
    body = "".join(
        f'<image id="{number}" name="frame_{number:06d}" width="1"><tag label="{label}" source="manual"/></image>'
        for number, label in tagged.items()
    )
    source = export("annotations.xml", CVAT.format(mode="annotation", start=10, step="step=2", body=body), "one.mp4")
    assert rows(read_manifest(source)) == [
        ("one.mp4", ("run",), Part(16, 6)),
        ("one.mp4", ("run",), Part(28, 2)),
        ("one.mp4", ("walk",), Part(30, 2)),
    ]


def test_cvat_tracks_of_every_sixth_frame_are_shown_to_the_next_one(export: Any) -> None:
    body = """<track id="0" label="run"><box frame="2" outside="0"/><box frame="8" outside="0"/></track>
    <track id="1" label="walk"><box frame="2" outside="0"/><box frame="8" outside="1"/></track>"""
    source = export("annotations.xml", CVAT.format(mode="interpolation", start=2, step="step=6", body=body), "one.mp4")
    assert rows(read_manifest(source)) == [("one.mp4", ("run",), Part(2, 12)), ("one.mp4", ("walk",), Part(2, 6))]


def test_a_skeleton_of_cvat_is_shown_while_one_of_its_points_is(export: Any) -> None:
    def skeleton(frame: int, first: int, second: int) -> str:
        points = "".join(f'<points label="{n}" outside="{out}"/>' for n, out in enumerate((first, second)))
        return f'<skeleton frame="{frame}" keyframe="1" z_order="0">{points}</skeleton>'

    body = f'<track id="0" label="run">{skeleton(3, 0, 1)}{skeleton(4, 0, 0)}{skeleton(5, 1, 1)}</track>'
    source = export("annotations.xml", CVAT.format(mode="interpolation", start=0, step="", body=body), "one.mp4")
    assert rows(read_manifest(source)) == [("one.mp4", ("run",), Part(3, 2))]


def cvat_project(subsets: dict[str, str]) -> str:
    """Return a project of tasks, each of one video that is tracked from frame 0 to 9."""
    tasks = "".join(
        f"<task><id>{video}</id><name>some {video}</name><subset>{subset}</subset><source>{video}.mp4</source></task>"
        for video, subset in subsets.items()
    )
    tracks = "".join(
        f'<track label="run" task_id="{video}"><box frame="0" outside="0"/><box frame="9" outside="0"/></track>'
        for video in subsets
    )
    return f"<annotations><meta><project><tasks>{tasks}</tasks></project></meta>{tracks}</annotations>"


def test_the_subsets_of_a_project_of_cvat_are_splits(export: Any) -> None:
    source = export("p.xml", cvat_project({"a": "Train", "b": "Validation"}), "a.mp4", "b.mp4")
    assert [(video.path, video.split) for video in read_lists([source]).videos] == [
        ("a.mp4", "train"),
        ("b.mp4", "val"),
    ]


def test_no_subset_of_cvat_is_called_default(export: Any) -> None:
    source = export("p.xml", cvat_project({"a": "default", "b": "default"}), "a.mp4", "b.mp4")
    assert [video.split for video in read_lists([source]).videos] == [None, None]


def test_a_missing_video_of_cvat_keeps_its_name_beside_an_xml_of_any_name(export: Any) -> None:
    assert read_manifest(export("p.xml", cvat_project({"a": "default"}))).files[0].endswith("/a.mp4")


def test_a_job_of_cvat_is_of_the_video_that_the_file_is_called_after(export: Any) -> None:
    content = (
        "<annotations><meta><job><size>9</size></job></meta><track label='run'><box frame='0'/></track></annotations>"
    )
    with pytest.raises(
        DualFormerError, match=r"annotations.xml' does not name its video, as CVAT's export of a job; exp"
    ):
        read_manifest(export("annotations.xml", content))
    assert rows(read_manifest(export("one.xml", content, "one.mp4"))) == [("one.mp4", ("run",), Part(0, 1))]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.xml", "<?xml version='1.0'?><annotations>", "is not as its tool writes it: it is not XML"),
        ("a.xml", "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><annotations/>", "it declares entities"),
        ("a.xml", "<?xml version='1.0'?><html/>", "is XML of <html>, and that of CVAT is of <annotations>"),
        ("a.xml", CVAT.format(mode="annotation", start=0, step="", body=""), "labels no videos and no parts"),
        (
            "a.json",
            {"database": {"x": {"annotations": [{"label": "y"}]}}},
            "it: video 'x': it has no 'segment'; it has 'label'; mend it",
        ),
        (
            "a.json",
            {"database": {"x": {"annotations": [{"label": "y", "segment": [1]}]}}},
            r"it: video 'x': its 'segment' is \[1\], and two",
        ),
        ("a.json", {"database": {"x": {"annotations": [{"label": "y", "segment": [3, 2]}]}}}, "ends at 2 seconds"),
        (
            "a.json",
            {"database": {"x": {"annotations": [{"label": "y", "segment": [-3, 2]}]}}},
            "video 'x': '-3' is not a time",
        ),
        ("a.json", {"classes": ["a"], "labels": {"x": 7}}, "it: video 'x': label 7 is none of the 1 classes"),
        ("a.json", {"classes": ["a"], "labels": {"x": -1}}, "it: video 'x': label -1 is none of the 1 classes"),
        (
            "a.xml",
            CVAT.format(mode="annotation", start=0, step="", body="<track><box frame='0'/></track>"),
            "no 'label'",
        ),
        (
            "a.csv",
            "annotation_id,annotator,choice,id,lead_time,title,video\n4,1,Still,1,3.5,My day,one.mp4\n",
            "its columns 'choice' and 'title' may all be the label, and it does not say which are; leave one",
        ),
        ("a.json", [{"data": {"text": "no video"}, "annotations": [], "id": 1}], "no column or key is a video: text"),
    ],
)
def test_what_is_not_as_a_tool_writes_it_is_named(export: Any, name: str, content: Any, complaint: str) -> None:
    with pytest.raises(DualFormerError, match=complaint) as caught:
        read_manifest(export(name, content))
    assert "\n" not in str(caught.value)


def changed(document: Any, *places: Any) -> Any:
    """Return a document with the last of some keys and values in place of what the keys before it lead to."""
    copied = json.loads(json.dumps(document))
    *keys, last, value = places
    inner = copied
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return copied


RESULT = (0, "annotations", 1, "result", 0, "value")
MIN = [
    {"video": "one.mp4", "id": 1, "annotator": 1, "annotation_id": 4, "lead_time": 2, "choice": "a"},
    {"video": "two.mp4", "id": 2, "annotator": 1, "annotation_id": 5, "lead_time": 2, "choice": "b"},
]
VIA = {
    "attribute": {},
    "file": {"1": {"fname": "one.mp4"}},
    "metadata": {"x": {"vid": "1", "z": [0.5, 6.5], "xy": [], "av": {"1": "break"}}},
    "view": {"1": {"fid_list": ["1"]}},
}
FIFTYONE = {
    "classes": ["a"],
    "labels": {"v": [{"label": "a", "timestamps": [1, 2]}, {"label": "a", "support": [1, 2]}]},
}
VIDEO = "--0edUL8zmA"
SEGMENT = ("database", VIDEO, "annotations", 0, "segment")
A_TIME = "is not a time in seconds, or such as 1:23.5 or 1:02:03"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (changed(ACTIVITYNET, *SEGMENT, ["1_0", 20]), f"video '{VIDEO}': '1_0' {A_TIME}"),
        (changed(ACTIVITYNET, *SEGMENT, [float("nan"), 20]), f"video '{VIDEO}': 'nan' {A_TIME}"),
        (changed(ACTIVITYNET, *SEGMENT, [0, True]), f"video '{VIDEO}': 'True' {A_TIME}"),
        (changed(ACTIVITYNET, *SEGMENT, None), f"video '{VIDEO}': its 'segment' is None, and a list is expected"),
        (changed(ACTIVITYNET, "database", VIDEO, "x"), f"video '{VIDEO}': 'x' stands where an object is expected"),
        (
            changed(ACTIVITYNET, "database", VIDEO, "annotations", 0, "label", {"name": "run"}),
            f"video '{VIDEO}': {{'name': 'run'}} is no label: neither text nor the number of a class",
        ),
        (changed(FIFTYONE, "labels", "v", 0, "timestamps", [1]), "video 'v': its 'timestamps' is [1], and two numbers"),
        (changed(FIFTYONE, "labels", "v", 1, "support", [0, 2]), "video 'v': its frames 0 to 2 are none: they count"),
        (changed(FIFTYONE, "labels", "v", 1, "support", [5, 2]), "video 'v': its frames 5 to 2 are none: they count"),
        (changed(FIFTYONE, "labels", "v", 1, "support", [1.5, 2]), "video 'v': 1.5 is not the number of a frame"),
        (changed(FIFTYONE, "classes", [{}]), "'classes': {} is no label"),
        (changed(LABEL_STUDIO, 0, "broken"), "task 1: 'broken' stands where an object is expected"),
        (changed(LABEL_STUDIO, 1, "data", {"text": "x"}), "task 2: no column or key is a video: text"),
        (changed(LABEL_STUDIO, *RESULT, "ranges", 0, "end", "x"), "task 1: 'x' is not the number of a frame"),
        (changed(LABEL_STUDIO, *RESULT, "ranges", 0, "end", 0), "task 1: its frames 1 to 0 are none"),
        (changed(LABEL_STUDIO, *RESULT, "ranges", 0, {"start": 1}), "task 1: it has no 'end'; it has 'start'"),
        (changed(LABEL_STUDIO, *RESULT, "timelinelabels", "x"), "task 1: its 'timelinelabels' is 'x', and a list"),
        (changed(LABEL_STUDIO, 1, "annotations", 0, "result", 0, "value", {}), "task 2: it has no 'choices'"),
        (changed(LABEL_STUDIO, 2, "annotations", 0, "result", 0, "value", "start", "1:75"), f"task 5: '1:75' {A_TIME}"),
        (changed(MIN, 1, "video", None), "entry 2: no column or key is a video"),
        (changed(MIN, 0, 7), "entry 1: 7 stands where an object is expected"),
        (changed(VIA, "metadata", "x", "z", [5, 1]), "segment 'x': its part ends at 1 seconds and starts at 5"),
        (changed(VIA, "metadata", "x", "vid", "7"), "segment 'x': it has no '7'; it has '1'"),
        (changed(VIA, "metadata", "x", "av", {"1": [3]}), "segment 'x': [3] is no label: neither text nor the number"),
        (changed(VIA, "file", "1", {}), "segment 'x': it has no 'fname'; it has nothing"),
        (changed(VIA, "view", "1", "fid_list", []), "segment 'x': its list of files is [], and the name of a video"),
        (VIA_CSV.replace("[1.124,5.31493]", "[1.124,"), "line 8: its temporal_coordinates '[1.124,' is not valid JSON"),
        (VIA_CSV.replace("[0,6.5]", "[-1,6.5]"), f"line 10: '-1' {A_TIME}"),
        (VIA_CSV + '"1_x"\n', "line 11: '\"1_x\"' has 1 field, and six are expected"),
        (LABEL_STUDIO_TABLE.replace('""end"":20', '""end"":2'), "line 3: its frames 11 to 2 are none"),
        (LABEL_STUDIO_TABLE.replace('"two.mp4"', '""'), "line 3: no column or key is a video"),
        (LABEL_STUDIO_TABLE + '"run",7\n', "line 5: it has 2 fields and the header 9; quote commas"),
        (
            CVAT.format(mode="annotation", start=0, step="", body='<image id="x"><tag label="run"/></image>'),
            "image x: 'x' is not the number of a frame, a whole one of at least 0",
        ),
        (
            CVAT.format(mode="annotation", start=0, step="", body='<image id="3"><tag/></image>'),
            "image 3: <tag> has no 'label'; it has {}",
        ),
        (
            CVAT.format(mode="x", start=0, step="", body='<track id="4" label="a"><box frame="1_0"/></track>'),
            "track 4: '1_0' is not the number of a frame",
        ),
        (
            cvat_project({"a": "", "b": ""}).replace('task_id="b"', 'task_id="z"'),
            "track None: its task_id is 'z', and the tasks are a, b",
        ),
    ],
)
def test_a_broken_entry_is_named_with_its_value_and_what_is_allowed(export: Any, content: Any, complaint: str) -> None:
    is_text = isinstance(content, str)
    name = "list.json" if not is_text else "list.xml" if content.startswith("<") else "list.csv"
    with pytest.raises(DualFormerError) as caught:
        read_manifest(export(name, content))
    said = str(caught.value)
    assert f"{name}' is not as its tool writes it: {complaint}" in said
    assert said.endswith("; mend it there, or export the list again")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"classes": ["a", "b"], "labels": {"one": 0, ', "is not valid JSON"),
        (b'{"classes": ["a", "b"], "labels": {"one": 0, "one": 1}}', "an object has the key 'one' twice; keep one"),
        ('{"classes": ["a"], "labels": {"one": 0}}'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b'{"classes": ["a"], "labels": {}}', "labels no videos and no parts of videos"),
    ],
)
def test_a_file_in_a_folder_that_may_label_its_videos_and_cannot_be_read_is_said(
    content: bytes, reason: str, export: Any, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.json"
    for name in ("one", "two"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.mp4").touch()
    labels.write_bytes(content)
    found, _ = _read_content(PrepareRequest(names=(str(tmp_path),)), lambda _line: None)
    assert found.class_names == ["data"]
    (note,) = [note for note in found.notes if "labels.json" in note]
    assert note.startswith(f"'{labels}' is left out: ")
    assert reason in note
    with pytest.raises(DualFormerError, match=reason):
        _read_content(PrepareRequest(names=(str(tmp_path),), labels=str(labels)), lambda _line: None)


def test_the_file_of_a_tool_in_a_folder_labels_its_videos(export: Any, tmp_path: Path) -> None:
    """FiftyOne's videos are all in data/, which is no class."""
    export("labels.json", {"classes": ["b", "a"], "labels": {"one": 0, "two": "a"}}, "data/one.mp4", "data/two.mp4")
    export("notes.json", {"author": "me"})
    content, root = _read_content(PrepareRequest(names=(str(tmp_path),)), lambda _line: None)
    assert Path(content.folder) == tmp_path / "data"
    assert [(video.path, video.labels) for video in content.videos] == [("one.mp4", ("b",)), ("two.mp4", ("a",))]
    assert root == tmp_path / "prepared"
    named = PrepareRequest(names=(str(tmp_path),), labels=export("other.xml", "<annotations/>"))
    with pytest.raises(DualFormerError, match=r"other.xml.*does not say of which task it is"):
        _read_content(named, lambda _line: None)


def test_a_part_from_the_first_frame_on_stays_a_part_for_prepare(export: Any) -> None:
    source = export("project.json", LABEL_STUDIO, "one.mp4", "clips/two b.mp4", "three.mp4")
    assert [[part.part for part in video.parts] for video in read_lists([source]).videos] == [
        [Part(0, 50), Part(50, 1)],
        [],
        [seconds(0.5, 3.25)],
    ]
    rows_of_frames = "path,label,start,num_frames\na.mp4,0,0,40\na.mp4,1,40,20\nb.mp4,0,0,30\n"
    videos = read_lists([export("parts.csv", rows_of_frames, "a.mp4", "b.mp4")]).videos
    assert [[part.part for part in video.parts] for video in videos] == [[Part(0, 40), Part(40, 20)], [Part(0, 30)]]


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_that_are_composed_otherwise_are_the_same_name(
    listed: Any, on_disk: Any, export: Any, tmp_path: Path
) -> None:
    """Archives that a Mac packed have letters and accents apart, and lists that people type have them together."""
    folder, name = "Việt", "수영 é"
    video = tmp_path / normalize(on_disk, folder) / f"{normalize(on_disk, name)}.mp4"
    path = normalize(listed, f"{folder}/{name}")
    sources = [
        export("list.csv", f"path,label\n{path}.mp4,0\n{path},0\nnöne.mp4,0\n", str(video)),
        export("labels.json", {"classes": ["a"], "labels": {path: 0, f"{path}.mp4": 0}}),
    ]
    for source in sources:
        assert list(read_manifest(source).files)[:2] == [str(video), str(video)]
    assert read_manifest(sources[0]).files[2] == str(tmp_path / "nöne.mp4")
    for written in (path, f"{path}.mp4"):
        assert FileFinder(str(tmp_path), [str(video.relative_to(tmp_path))]).find(written, "") == str(
            video.relative_to(tmp_path)
        )
