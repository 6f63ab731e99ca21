"""Annotations are joined with files under all names that copies give them; what does not fit is counted or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.datasets.annotations import read_annotations
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.datasets.official_lists import read_dataset
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.folders import VideoFolder
from dualformer_cli.errors import DualFormerError

CATALOGUE = load_catalogue({})
HEADER = "label,youtube_id,time_start,time_end,split\n"
K400 = "aaaaaaaaaaa_000001_000011"


@pytest.fixture(autouse=True)
def root(tmp_path: Path) -> Path:
    return tmp_path


def put(root: Path, name: str, annotations: Mapping[str, str | bytes], videos: Sequence[str] = ()) -> None:
    for path, text in annotations.items():
        file = root / name / "annotations" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for video in videos:
        file = root / name / video
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def read(root: Path, name: str) -> VideoFolder:
    return read_dataset(CATALOGUE, name, root)


def listed(content: VideoFolder, split: str) -> dict[str, tuple[int, ...]]:
    (found,) = [one for one in content.lists if one.name == split]
    return {content.videos[row.video].path: row.labels for row in found.rows}


def refused(root: Path, name: str) -> str:
    with pytest.raises(DualFormerError) as caught:
        read(root, name)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "video",
    [
        f"videos_train/{K400}.mp4",
        f"videos_train/air_drumming/{K400}.mkv",
        f"videos_train/{K400}.MP4",
        "videos_train/aaaaaaaaaaa.webm",
        f"videos_replacement/{K400}.mp4",
    ],
)
def test_kinetics_clips_are_found_under_the_names_of_all_copies(video: str, root: Path) -> None:
    put(root, "kinetics400", {"train.csv": HEADER + '"air drumming",aaaaaaaaaaa,1,11,train\n'}, [video])
    assert listed(read(root, "kinetics400"), "train") == {video: (1,)}


def test_a_video_of_another_split_or_of_other_times_is_not_taken(root: Path) -> None:
    videos = [f"videos_val/{K400}.mp4", "videos_train/aaaaaaaaaaa_000002_000012.mp4", "videos_train/x.mp4"]
    put(root, "kinetics400", {"train.csv": HEADER + "zumba,aaaaaaaaaaa,1,11,train\n"}, videos)
    assert "3 videos" in refused(root, "kinetics400")
    assert "none is among the annotated and labelled videos of kinetics400" in refused(root, "kinetics400")


def test_an_id_that_names_two_videos_counts_only_in_the_folder_of_its_class(root: Path) -> None:
    rows = "zumba,aaaaaaaaaaa,1,11,train\nabseiling,aaaaaaaaaaa,21,31,train\nzumba,bbbbbbbbbbb,0,10,train\n"
    put(
        root,
        "kinetics400",
        {"train.csv": HEADER + rows},
        ["videos_train/bbbbbbbbbbb.mp4", "videos_train/aaaaaaaaaaa.mp4"],
    )
    content = read(root, "kinetics400")
    assert listed(content, "train") == {"videos_train/bbbbbbbbbbb.mp4": (399,)}
    assert content.dataset.splits["train"].ambiguous == 2
    put(root, "kinetics400", {}, ["videos_train/Zumba/aaaaaaaaaaa.mp4"])
    assert listed(read(root, "kinetics400"), "train")["videos_train/Zumba/aaaaaaaaaaa.mp4"] == (399,)


def test_repeats_are_listed_once_and_contradictions_not_at_all(root: Path) -> None:
    rows = "zumba,aaaaaaaaaaa,1,11,train\n" * 3 + "zumba,bbbbbbbbbbb,1,11,train\nabseiling,bbbbbbbbbbb,1,11,train\n"
    videos = [f"videos_train/{one * 11}_000001_000011.mp4" for one in "ab"]
    put(root, "kinetics400", {"train.csv": HEADER + rows}, videos)
    content = read(root, "kinetics400")
    assert listed(content, "train") == {videos[0]: (399,)}
    assert any(
        note.startswith("1 video of train annotated twice with different classes: left out") for note in content.notes
    )
    assert "3 annotations of train for a video that has one: listed once" in content.notes


def test_the_same_video_in_train_and_val_is_told(root: Path) -> None:
    row = "zumba,aaaaaaaaaaa,1,11,x\n"
    put(root, "kinetics400", {"train.csv": HEADER + row, "val.csv": HEADER + row}, [f"videos/{K400}.mp4"])
    assert any("its val split has 1 video of train too, such as" in note for note in read(root, "kinetics400").notes)


def test_a_second_copy_and_videos_without_annotation_are_counted(root: Path) -> None:
    videos = [f"videos_train/{K400}.mp4", f"videos_train/copy/{K400}.mp4", "videos_train/other.mp4", "prepared/x.mp4"]
    put(root, "kinetics400", {"train.csv": HEADER + "zumba,aaaaaaaaaaa,1,11,train\n"}, videos)
    counts = read(root, "kinetics400").dataset
    assert (counts.copies.videos, counts.not_annotated.examples) == (1, ("videos_train/other.mp4",))


def test_annotations_of_kinetics_in_json_say_the_same(root: Path) -> None:
    video = {"annotations": {"label": "zumba", "segment": [1.0, 11.0]}, "duration": 10.0, "subset": "train", "url": ""}
    put(root, "kinetics700", {"train.json": json.dumps({"aaaaaaaaaaa": video})})
    put(root, "kinetics700-2020", {}, [f"videos_train/zumba/{K400}.mp4"])
    content = read(root, "kinetics700")
    assert listed(content, "train") == {f"videos_train/zumba/{K400}.mp4": (699,)}
    assert content.folder == str(root / "kinetics700-2020")


@pytest.mark.parametrize(
    ("name", "folder", "video"),
    [
        ("HandstandPushups", "HandStandPushups", "v_HandStandPushups_g01_c01"),
        ("HandStandPushups", "HandstandPushups", "v_HandstandPushups_g01_c01"),
        ("HandstandPushups", "", "v_HandStandPushups_g01_c01"),
    ],
)
def test_the_class_of_ucf101_that_is_spelled_in_two_ways_is_found(
    name: str, folder: str, video: str, root: Path
) -> None:
    path = "/".join(filter(None, ("videos", folder, f"{video}.avi")))
    put(root, "ucf101", {"trainlist02.txt": f"{name}/v_HandStandPushups_g01_c01.avi 37\r\n"}, [path])
    assert listed(read(root, "ucf101"), "train_2") == {path: (36,)}


def test_a_class_index_that_calls_the_last_class_0_and_uses_crlf_is_read(root: Path) -> None:
    names = load_class_names("ucf101")
    index = "".join(f"{(row + 1) % 101} {name}\r\n" for row, name in enumerate(names))
    lists = {"classInd.txt": index, "testlist01.txt": "YoYo/v_YoYo_g01_c01.avi\n"}
    put(root, "ucf101", lists, ["videos/YoYo/v_YoYo_g01_c01.avi"])
    content = read(root, "ucf101")
    assert content.class_names == names
    assert not [note for note in content.notes if "are published" not in note]


def test_a_file_name_in_another_class_folder_is_another_video(root: Path) -> None:
    lists = {"trainingSet.csv": "blocking/a.mp4,blocking,3,0\ndancing/a.mp4,dancing,3,0\n"}
    put(root, "mit", lists, ["videos/training/dancing/a.mp4", "videos/validation/blocking/a.mp4"])
    content = read(root, "mit")
    assert list(listed(content, "train")) == ["videos/training/dancing/a.mp4"]
    assert content.dataset.splits["train"].missing_videos == ("blocking/a",)


def test_the_order_of_the_users_own_index_counts_and_is_told(root: Path) -> None:
    names = sorted(load_class_names("sthv1"))
    labels = "\n".join(names)
    put(
        root,
        "sthv1",
        {"x-labels.csv": labels, "x-train.csv": f"7;{names[5]}\n"},
        ["rawframes/7/00001.jpg", "rawframes/7/00002.jpg"],
    )
    content = read(root, "sthv1")
    assert listed(content, "train") == {"rawframes/7": (5,)}
    (note,) = [note for note in content.notes if "are published" not in note]
    assert "which is not our order" in note
    assert "both have the same 174 classes in another order" in note


def test_a_classes_txt_beside_the_annotations_comes_before_all(root: Path) -> None:
    lists = {"train.csv": HEADER + "my own,aaaaaaaaaaa,1,11,train\n", "classes.txt": "other\nmy own\n"}
    put(root, "kinetics400", lists, [f"videos_train/{K400}.mp4"])
    content = read(root, "kinetics400")
    assert listed(content, "train") == {f"videos_train/{K400}.mp4": (1,)}
    assert content.lists[0].class_names == ["other", "my own"]


def test_clips_of_hvu_are_in_the_list_of_a_group_only_if_they_have_tags_of_it(root: Path) -> None:
    action, scene = load_class_names("hvu_action"), load_class_names("hvu_scene")
    table = f"Tags,youtube_id,time_start,time_end\n{scene[3]}|{action[1]},gD_G1b0wV5I,101.5,103.5\n{scene[0]},x,1,11\n"
    videos = ["videos_train/gD_G1b0wV5I_000101_000103.mp4", "videos_train/x_000010_000110.mp4"]
    put(root, "hvu", {"HVU_Train_V1.0.csv": table}, videos)
    content = read(root, "hvu")
    assert listed(content, "action/train") == {videos[0]: (1,)}
    assert listed(content, "scene/train") == {videos[0]: (3,), videos[1]: (0,)}
    assert listed(content, "event/train") == {}


def test_parts_of_activitynet_come_in_seconds_with_their_own_class(root: Path) -> None:
    said = [{"segment": [30.03, 205.23], "label": "Rock climbing"}, {"segment": [1, 2], "label": "Arm wrestling"}]
    video = {"duration": 211.53, "subset": "validation", "annotations": said}
    put(root, "activitynet", {"activity_net.json": json.dumps({"database": {"-a": video}})}, ["videos/val/v_-a.mkv"])
    content = read(root, "activitynet")
    (clips,) = [one for one in content.lists if one.name == "val_clips"]
    names = load_class_names("activitynet200")
    assert [(names[row.labels[0]], row.part[2:]) for row in clips.rows] == [
        ("Rock climbing", (30.03, 205.23)),
        ("Arm wrestling", (1.0, 2.0)),
    ]
    assert listed(content, "val") == {"videos/val/v_-a.mkv": (names.index("Rock climbing"),)}


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("kinetics400", "train.csv", "a/b.mp4 3\nc.mp4 4\n", "have no column 'label'"),
        ("kinetics400", "train.csv", "a/b.mp4,3\n", "train and eval read it as it is: --data FILE"),
        ("kinetics400", "train.csv", HEADER + "zumba,aaaaaaaaaaa,1\n", "line 2: it has 3 fields and the header 5"),
        (
            "kinetics400",
            "train.csv",
            HEADER + "zumba,aaaaaaaaaaa,1,x,train\n",
            "could not convert string to float: 'x'",
        ),
        ("kinetics400", "train.csv", HEADER + ",aaaaaaaaaaa,1,11,train\n", "'aaaaaaaaaaa' has no label"),
        ("kinetics400", "train.csv", "", "have no column 'label'"),
        ("kinetics400", "train.csv", HEADER, "no annotations of kinetics400"),
        ("activitynet", "activity_net.json", '{"database": {"a', "are damaged or of another kind"),
        ("activitynet", "activity_net.json", '{"database": {"a": {"subset": "what"}}}', "has no 'what'"),
        ("sthv2", "train.json", '[{"template": "x"}]', "an entry has no 'id'"),
        ("sthv1", "x-train.csv", "100218\n", "'100218' is not ID;LABEL"),
        ("jester", "train.csv", "1,Drumming Fingers\n", "is not ID;LABEL"),
        ("diving48", "Diving48_V2_train.json", '[{"vid_name": "a", "label": "x"}]', "invalid literal"),
        ("mit", "trainingSet.csv", "nothing\n", "'nothing' is not CLASS/FILE,LABEL"),
        ("hmdb51", "kick_test_split1.txt", "a.avi\n", "is not FILE FLAG"),
        ("hmdb51", "kick_test_split1.txt", "a.avi 7\n", "is not FILE FLAG"),
        ("ucf101", "trainlist01.txt", "v_A.avi 1\n", "is not CLASS/FILE.avi"),
        ("omnisource", "k200_val.txt", "a.mp4\n", "is not PATH LABEL"),
    ],
)
def test_annotations_that_are_damaged_or_of_another_kind_are_one_line(
    name: str, file: str, text: str, said: str, root: Path
) -> None:
    put(root, name, {file: text}, ["videos/a.mp4"])
    assert said in refused(root, name)


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("kinetics400", {"train.csv": HEADER + "zumbo,aaaaaaaaaaa,1,11,train\n"}, "'zumbo' is none of the 400 classes"),
        ("kinetics400", {"train.csv": HEADER + "zumbo,aaaaaaaaaaa,1,11,train\n"}, "did you mean 'zumba'?"),
        ("diving48", {"Diving48_V2_test.json": f'[{{"vid_name": "{K400}", "label": 48}}]'}, "they count from 0 to 47"),
        ("jester", {"labels.csv": "a\nb\n", "train.csv": f"{K400};c\n"}, "'c' is none of the 2 classes of"),
        ("mmit", {"trainingSet.csv": f"videos/{K400}.mp4,1,999\n"}, "line 1: 999 is none of the 313 classes"),
        ("ucf101", {"classInd.txt": "1 A\n3 B\n", "trainlist01.txt": f"A/{K400}.avi 1\n"}, "has no class 1: 'B' is"),
    ],
)
def test_classes_that_are_not_known_are_named_with_their_line(
    name: str, files: Mapping[str, str], said: str, root: Path
) -> None:
    put(root, name, files, [f"videos/{K400}.mp4"])
    assert said in refused(root, name)


def test_what_is_not_there_at_all_is_told_with_the_command_that_gets_it(root: Path) -> None:
    assert f"dualformer download jester --only annotations --root {root}" in refused(root, "jester")
    put(root, "kinetics700", {"train.csv": HEADER + "zumba,aaaaaaaaaaa,1,11,train\n"})
    assert f"dualformer download kinetics700-2020 --only videos --root {root}" in refused(root, "kinetics700")


@given(st.binary(max_size=60))
def test_any_bytes_are_annotations_or_one_line_of_complaint(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    formats = (("kinetics", "train.csv"), ("twentybn-json", "train.json"), ("moments", "trainingSet"))
    for annotation_format, file in formats:
        (folder / file).write_bytes(raw)
        said = ""
        try:
            read_annotations(annotation_format, folder)
        except DualFormerError as error:
            said = str(error)
        assert "\n" not in said


def test_annotations_that_name_fewer_videos_than_published_are_told(root: Path) -> None:
    put(root, "kinetics400", {"val.csv": HEADER + "zumba,aaaaaaaaaaa,1,11,val\n"}, ["videos_val/aaaaaaaaaaa.mp4"])
    notes = read(root, "kinetics400").notes
    assert any(note.startswith("the annotations of val name 1 video, and 19,906 are published") for note in notes)


@pytest.mark.parametrize(
    "file",
    [
        "kinetics-400_val.csv",
        "kinetics400_val.csv",
        "kinetics_val.csv",
        "k400_val.csv",
        "validate.csv",
        "kinetics400/validate.csv",
        "Kinetics400_Val.csv",
    ],
)
def test_annotations_are_found_under_the_names_that_other_tools_give_them(file: str, root: Path) -> None:
    put(root, "kinetics400", {}, ["videos_val/aaaaaaaaaaa.mp4"])
    path = root / "kinetics400" / "annotations" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "zumba,aaaaaaaaaaa,1,11,val\n")
    assert listed(read(root, "kinetics400"), "val") == {"videos_val/aaaaaaaaaaa.mp4": (399,)}


def test_what_is_looked_for_and_what_is_there_is_told(root: Path) -> None:
    put(root, "kinetics400", {"list of mine.csv": "x"}, ["videos_val/aaaaaaaaaaa.mp4"])
    assert "looked for train.csv, val.csv, test.csv and other spellings of them, and there is list of mine.csv" in (
        refused(root, "kinetics400")
    )


def test_of_omnisource_the_list_without_duplicates_is_taken(root: Path) -> None:
    name = "insvideo_200/slowonly_8x8_insvideo_200"
    lists = {f"{name}.txt": "a/dup.mp4 0\na/good.mp4 0\n", f"{name}_duplicate.txt": "a/dup.mp4 0\n"}
    lists |= {f"{name}_wodup.txt": "a/good.mp4 0\n", "k200_actions.txt": "abseil\n"}
    for file, text in lists.items():
        path = root / "omnisource" / "annotations" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    put(root, "omnisource", {}, ["insvideo_200/a/dup.mp4", "insvideo_200/a/good.mp4"])
    assert list(listed(read(root, "omnisource"), "train_insvideo")) == ["insvideo_200/a/good.mp4"]


def test_parts_of_no_length_or_beyond_the_end_are_counted_and_left_out(root: Path) -> None:
    segments = [[1, 2], [3, 3], [12, 13], [5, 99], [None, 2], [4, 2]]
    parts = [{"segment": segment, "label": "Archery"} for segment in segments]
    video = {"duration": 10.0, "subset": "training", "annotations": parts}
    put(root, "activitynet", {"activity_net.v1-3.min.json": json.dumps({"database": {"a": video}})}, ["videos/v_a.mp4"])
    content = read(root, "activitynet")
    (clips,) = [one for one in content.lists if one.name == "train_clips"]
    assert [row.part[2:] for row in clips.rows] == [(1.0, 2.0), (5.0, 99.0)]
    told = "\n".join(content.notes)
    assert "2 annotated parts of train have no length and are left out, such as v_a 3 to 3 s" in told
    assert "1 annotated parts of train begin at or beyond the end of their video and are left out" in told
    assert "1 annotated parts of train have no start and end in seconds and are left out" in told
    assert "1 annotated parts of train end beyond the end of their video and are taken up to it" in told


def test_a_format_that_nobody_reads_is_named(root: Path) -> None:
    formats = "activitynet, diving48, hmdb51, hvu, kinetics, moments, omnisource, twentybn-csv, twentybn-json, ucf101"
    with pytest.raises(DualFormerError) as wrong:
        read_annotations("kinetic", root)
    assert str(wrong.value) == f"no annotation format is called 'kinetic'; did you mean 'kinetics'? {formats} are"
    with pytest.raises(DualFormerError, match="no annotation format is called 'base'"):  # a file beside them
        read_annotations("base", root)
