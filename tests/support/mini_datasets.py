"""A miniature of every dataset, in its own layout, archives and annotation format; videos are a few small clips.

Each has a video that is annotated and not there, and, where copies have them, the traps that its real files hold.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rar_writer import rar4, rar5

from dualformer_cli.data.lists.class_lists import load_class_names

Lists = dict[str, list[tuple[str, tuple[int, ...]]]]


@dataclass
class Mini:
    """One dataset."""

    lists: Lists
    """Rows that prepare has to write: end of the path, and class numbers."""
    missing: dict[str, int]
    """Annotated videos that are not there, by split."""
    served: dict[str, bytes] = field(default_factory=dict)
    """Files by the path of their address."""
    placed: dict[str, bytes] = field(default_factory=dict)
    """Files that the user puts below the dataset's folder."""
    is_multi_label: bool = False
    videos_of: str = ""
    notes: Sequence[str] = ()
    """Beginnings of what prepare says of it."""


@dataclass
class Clips:
    """What the videos of all datasets are."""

    videos: list[bytes]
    frames: list[dict[str, bytes]]
    """Images by name, of each video."""


def tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def targz(files: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tar(files), 1)


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lines(*rows: str, end: str = "\n") -> bytes:
    return "".join(row + end for row in rows).encode()


def number(classes: str, name: str) -> int:
    return load_class_names(classes).index(name)


def hmdb51(clips: Clips) -> Mini:
    """rar in rar; the class order is that of the folders; 0 is not used in a split."""
    a, b, c, d = clips.videos
    names = {"kick": "kick_[a]_(1)!&;.avi", "kick_ball": "ball_#1+@.avi", "sword": "-sword.avi"}
    flags = {"kick": "122", "kick_ball": "211", "sword": "120"}
    splits = {
        f"testTrainMulti_7030_splits/{name}_test_split{split}.txt": lines(
            f"{names[name]} {flags[name][split - 1]} ", *(["gone.avi 1 "] if name == "kick" else [])
        )
        for name in names
        for split in (1, 2, 3)
    }
    inner = {name: {f"{name}/{names[name]}": video} for name, video in zip(names, (a, b, c), strict=True)}
    inner["sword"]["sword/never annotated.avi"] = d
    folder = "/wp-content/uploads/2013/10"
    rows = {name: (f"videos/{name}/{names[name]}", (number("hmdb51", name),)) for name in names}
    return Mini(
        served={
            f"{folder}/test_train_splits.rar": rar4(splits),
            f"{folder}/hmdb51_org.rar": rar4({f"{name}.rar": rar5(files) for name, files in inner.items()}),
        },
        lists={
            "train_1": [rows["kick"], rows["sword"]],
            "val_1": [rows["kick_ball"]],
            "train_2": [rows["kick_ball"]],
            "val_2": [rows["kick"], rows["sword"]],
            "train_3": [rows["kick_ball"]],
            "val_3": [rows["kick"]],
        },
        missing={"train_1": 1, "train_2": 1, "train_3": 1},
    )


def ucf101(clips: Clips) -> Mini:
    """CRLF in two lists; a copy that spells one folder otherwise; numbers from 1 in an order of their own."""
    a, b, c, _ = clips.videos
    index = [f"{row} {name}" for row, name in enumerate(load_class_names("ucf101"), start=1)]
    train = ["Hammering/v_Hammering_g08_c01.avi 35", "HandstandPushups/v_HandStandPushups_g08_c02.avi 37"]
    test = ["HammerThrow/v_HammerThrow_g01_c01.avi", "HammerThrow/v_HammerThrow_g01_c02.avi"]
    folder = "ucfTrainTestlist"
    lists = {f"{folder}/classInd.txt": lines(*index, end="\r\n")}
    for split in (1, 2, 3):
        lists[f"{folder}/trainlist0{split}.txt"] = lines(*train, end="\r\n")
        lists[f"{folder}/testlist0{split}.txt"] = lines(*test)
    videos = {
        "UCF-101/Hammering/v_Hammering_g08_c01.avi": a,
        "UCF-101/HandStandPushups/v_HandStandPushups_g08_c02.avi": b,
        "UCF-101/HammerThrow/v_HammerThrow_g01_c01.avi": c,
    }
    expected: Lists = {}
    for split in (1, 2, 3):
        expected[f"train_{split}"] = [
            ("Hammering/v_Hammering_g08_c01.avi", (34,)),
            ("HandStandPushups/v_HandStandPushups_g08_c02.avi", (36,)),
        ]
        expected[f"val_{split}"] = [("HammerThrow/v_HammerThrow_g01_c01.avi", (35,))]
    return Mini(
        served={
            "/wp-content/uploads/2019/03/UCF101TrainTestSplits-RecognitionTask.zip": zipped(lists),
            "/datasets/human-actions/ucf101/UCF101.rar": rar4(videos),
        },
        lists=expected,
        missing={"val_1": 1, "val_2": 1, "val_3": 1},
    )


def activitynet(clips: Clips) -> Mini:
    """Parts in seconds, mixed suffixes, several classes, no labels in the test split; the order is arbitrary."""
    a, b, c, d = clips.videos

    def video(subset: str, *parts: tuple[float, float, str]) -> dict[str, object]:
        said = [{"segment": [start, end], "label": label} for start, end, label in parts]
        return {"duration": 0.8, "subset": subset, "resolution": "96x64", "url": "", "annotations": said}

    database = {
        "--1DO2V4K74": video("training", (0.2, 0.6, "Rock climbing"), (0.6, 9.0, "Arm wrestling")),
        "_6bJUbfpnQA": video("training", (0.0, 0.4, "Drinking beer")),
        "gone_______": video("training", (0.0, 0.4, "Drinking beer")),
        "valid_-____": video("validation", (0.08, 0.72, "Arm wrestling")),
        "test_______": video("testing"),
    }
    rock, arm, beer = (number("activitynet200", name) for name in ("Rock climbing", "Arm wrestling", "Drinking beer"))
    return Mini(
        served={"/files/activity_net.v1-3.min.json": json.dumps({"database": database, "taxonomy": []}).encode()},
        placed={
            "v1-2_train.tar.gz": targz({"v1-2/train/v_--1DO2V4K74.mp4": a}),
            "v1-2_val.tar.gz": targz({"v1-2/val/v_valid_-____.mkv": b}),
            "archives/v1-3_train_val.tar.gz": targz({"v1-3/train_val/v__6bJUbfpnQA.webm": c}),
            "v1-2_test.tar.gz": targz({"v1-2/test/v_test_______.mp4": d}),
            "v1-3_test.tar.gz": targz({"v_v13_testtargz.mp4": d}),
            "missing_files.zip": zipped({"v_missing_fileszip.mp4": d}),
            "missing_files_v1-2_test.zip": zipped({"v_missing_files_v12_testzip.mp4": d}),
            "missing_files_v1-3_test.zip": zipped({"v_missing_files_v13_testzip.mp4": d}),
        },
        lists={
            "train": [("v1-2/train/v_--1DO2V4K74.mp4", (rock,)), ("v__6bJUbfpnQA.webm", (beer,))],
            "val": [("v_valid_-____.mkv", (arm,))],
            "train_clips": [
                ("v_--1DO2V4K74.mp4", (rock,)),
                ("v_--1DO2V4K74.mp4", (arm,)),
                ("v__6bJUbfpnQA.webm", (beer,)),
            ],
            "val_clips": [("v_valid_-____.mkv", (arm,))],
        },
        missing={"train": 1},
        notes=["1 video of test without a label", "1 video of train with several classes"],
    )


HEADER = "label,youtube_id,time_start,time_end,split"


def kinetics400(clips: Clips) -> Mini:
    """A replacement clip wins; an old name; ids that start with a hyphen; quoted labels; no labels in test.csv."""
    a, b, c, d = clips.videos
    folder = "/kinetics/400"
    list_of = {split: f"https://s3.amazonaws.com/kinetics/400/{split}/part_0.tar.gz\n" for split in ("train", "val")}
    train = [
        "abseiling,0wR5jVB-WPk,417,427,train,0",
        '"air drumming",--nQbRBEz2s,104,114,train,0',
        "zumba,old-name___,1,11,train,0",
        "zumba,gone_______,1,11,train,0",
    ]
    return Mini(
        served={
            f"{folder}/annotations/train.csv": lines(f"{HEADER},is_cc", *train),
            f"{folder}/annotations/val.csv": lines(f"{HEADER},is_cc", "zumba,_v-al______,5,15,val,0"),
            f"{folder}/annotations/test.csv": lines("youtube_id,time_start,time_end,split", "test_______,0,10,test"),
            f"{folder}/train/k400_train_path.txt": list_of["train"].encode(),
            f"{folder}/val/k400_val_path.txt": list_of["val"].encode(),
            f"{folder}/test/k400_test_path.txt": list_of["val"].replace("val", "test").encode(),
            f"{folder}/train/part_0.tar.gz": tar(  # once a plain tar under this name
                {
                    "0wR5jVB-WPk_000417_000427.mp4": b"corrupt",
                    "--nQbRBEz2s_000104_000114.mp4": a,
                    "old-name___.mp4": b,
                    "unasked_____000001_000011.mp4": b,
                }
            ),
            f"{folder}/val/part_0.tar.gz": targz({"./_v-al_______000005_000015.mp4": c}),
            f"{folder}/test/part_0.tar.gz": targz({"test________000000_000010.mp4": d}),
            f"{folder}/replacement_for_corrupted_k400.tgz": targz(
                {"replacement_for_corrupted_k400/0wR5jVB-WPk_000417_000427.mp4": d}
            ),
        },
        lists={
            "train": [
                ("videos_replacement/0wR5jVB-WPk_000417_000427.mp4", (0,)),
                ("videos_train/--nQbRBEz2s_000104_000114.mp4", (1,)),
                ("videos_train/old-name___.mp4", (399,)),
            ],
            "val": [("videos_val/_v-al_______000005_000015.mp4", (399,))],
        },
        missing={"train": 1},
        notes=["1 video of test without a label"],
    )


def kinetics600(clips: Clips) -> Mini:
    """An archive a class, its name with spaces; the annotations are incomplete, and the archive tells the class."""
    a, b, c, _ = clips.videos
    folder, host = "/kinetics/600", "https://s3.amazonaws.com/kinetics/600"
    american, mountain = "passing American football (in game)", "mountain climber (exercise)"
    not_in_game = "passing american football (not in game)"
    test = "youtube_id,time_start,time_end,split"
    return Mini(
        served={
            f"{folder}/annotations/train.csv": lines(HEADER, f"{not_in_game},aaaaaaaaaaa,1,11,train"),
            f"{folder}/annotations/train.txt": b"of an unknown format\n",
            f"{folder}/annotations/val.csv": lines(
                HEADER, f"{mountain},_bbbbbbbbb-,2,12,val", "zumba,gone_______,0,10,val"
            ),
            f"{folder}/annotations/val.txt": b"of an unknown format\n",
            f"{folder}/annotations/test.csv": lines(test, "test_______,0,10,test"),
            f"{folder}/annotations/kinetics600_holdout_test.csv": lines(test, "test_______,0,10,test"),
            f"{folder}/train/k600_train_path.txt": lines(
                f"{host}/train/{american}.tar.gz", f"{host}/train/{not_in_game}.tar.gz"
            ),
            f"{folder}/val/k600_val_path.txt": lines(f"{host}/val/{mountain}.tar.gz"),
            f"{folder}/test/k600_test_path.txt": lines(f"{host}/test/part_0.tar.gz"),
            f"{folder}/train/{american}.tar.gz": targz({"./ccccccccccc_000003_000013.mp4": a}),
            f"{folder}/train/{not_in_game}.tar.gz": targz({"./aaaaaaaaaaa_000001_000011.mp4": b}),
            f"{folder}/val/{mountain}.tar.gz": targz(
                {f"{mountain}/_bbbbbbbbb-_000002_000012.mp4": c, f"{mountain}/._bbbbbbbbb-_000002_000012.mp4": b"junk"}
            ),
            f"{folder}/test/part_0.tar.gz": targz({"test________000000_000010.mp4": c}),
        },
        lists={
            "train": [
                ("aaaaaaaaaaa_000001_000011.mp4", (309,)),
                (f"videos_train/{american}/ccccccccccc_000003_000013.mp4", (308,)),
            ],
            "val": [(f"videos_val/{mountain}/_bbbbbbbbb-_000002_000012.mp4", (number("kinetics600", mountain),))],
        },
        missing={"val": 1},
        notes=[
            "the class of 1 video that the annotations lack is that of the archive",
            "annotations/train.txt and annotations/val.txt not used: their format is not documented",
        ],
    )


def kinetics700_2020(clips: Clips) -> Mini:
    """Class folders with spaces in the archives; one id in two videos of different classes."""
    a, b, c, d = clips.videos
    folder, host = "/kinetics/700_2020", "https://s3.amazonaws.com/kinetics/700_2020"
    train = ["driving car,aaaaaaaaaaa,1,11,train", "zumba,aaaaaaaaaaa,21,31,train", "zumba,gone_______,0,10,train"]
    return Mini(
        served={
            f"{folder}/annotations/train.csv": lines(HEADER, *train),
            f"{folder}/annotations/val.csv": lines(HEADER, "driving car,bbbbbbbbbbb,1,11,val"),
            f"{folder}/annotations/test.csv": lines("youtube_id,time_start,time_end,split", "test_______,0,10,test"),
            f"{folder}/train/k700_2020_train_path.txt": lines(
                f"{host}/train/k700_train_171.tar.gz", f"{host}/train/k700_train_700.tar.gz"
            ),
            f"{folder}/val/k700_2020_val_path.txt": lines(f"{host}/val/k700_val_171.tar.gz"),
            f"{folder}/test/k700_2020_test_path.txt": lines(f"{host}/test/k700_test_001.tar.gz"),
            f"{folder}/train/k700_train_171.tar.gz": targz({"driving car/aaaaaaaaaaa_000001_000011.mp4": a}),
            f"{folder}/train/k700_train_700.tar.gz": targz({"zumba/aaaaaaaaaaa_000021_000031.mp4": b}),
            f"{folder}/val/k700_val_171.tar.gz": targz({"driving car/bbbbbbbbbbb_000001_000011.mp4": c}),
            f"{folder}/test/k700_test_001.tar.gz": targz({"test________000000_000010.mp4": d}),
        },
        lists={
            "train": [
                ("videos_train/driving car/aaaaaaaaaaa_000001_000011.mp4", (170,)),
                ("videos_train/zumba/aaaaaaaaaaa_000021_000031.mp4", (699,)),
            ],
            "val": [("videos_val/driving car/bbbbbbbbbbb_000001_000011.mp4", (170,))],
        },
        missing={"train": 1},
    )


def kinetics700(clips: Clips) -> Mini:
    """Annotations of 2019 with the videos of 2020; its test.csv has labels."""
    mini = kinetics700_2020(clips)
    two_classes = ["zumba,aaaaaaaaaaa,21,31,train", "driving car,aaaaaaaaaaa,1,11,train"]  # one cannot be learnt
    train = lines(HEADER, *two_classes, "driving car,only-2019__,0,10,train")
    own = {
        "kinetics700/train.csv": train,
        "kinetics700/train.json": b"{}",
        "kinetics700/validate.csv": lines(HEADER, "driving car,bbbbbbbbbbb,1,11,validate"),
        "kinetics700/test.csv": lines(HEADER, "zumba,test_______,0,10,test"),
    }
    mini.served["/deepmind-media/Datasets/kinetics700.tar.gz"] = targz(own)
    mini.lists = {
        "train": [
            ("kinetics700-2020/videos_train/zumba/aaaaaaaaaaa_000021_000031.mp4", (699,)),
            ("kinetics700-2020/videos_train/driving car/aaaaaaaaaaa_000001_000011.mp4", (170,)),
        ],
        "val": [("videos_val/driving car/bbbbbbbbbbb_000001_000011.mp4", (170,))],
        "test": [("videos_test/test________000000_000010.mp4", (699,))],
    }
    mini.videos_of = "kinetics700-2020"
    return mini


def _parts(whole: bytes, stem: str, *, zip_each: bool = False) -> dict[str, bytes]:
    size = -(-len(whole) // 3)
    parts = {f"{stem}{index:02d}": whole[index * size : (index + 1) * size] for index in range(3)}
    return {f"{name}.zip": zipped({name: part}) for name, part in parts.items()} if zip_each else parts


def _frames(clips: Clips, folder: str, *ids: str) -> bytes:
    files = {}
    for index, own in enumerate(ids):
        files |= {f"{folder}/{own}/{name}": image for name, image in clips.frames[index].items()}
    return targz(files)


def sthv1(clips: Clips) -> Mini:
    """Frames in one archive in pieces; the order of labels.csv, not the alphabet; commas and apostrophes in labels."""
    names = load_class_names("sthv1")
    comma = next(name for name in names if "," in name)
    prefix = "annotations/something-something-v1"
    return Mini(
        placed={
            f"{prefix}-labels.csv": lines(*names),
            f"{prefix}-train.csv": lines(f"100218;{names[2]}", f"7;{comma}", end="\r\n"),
            f"{prefix}-validation.csv": lines(f"24413;{names[0]}", f"1;{names[0]}"),
            f"{prefix}-test.csv": lines("2"),
            **_parts(
                _frames(clips, "20bn-something-something-v1", "100218", "7", "24413"), "20bn-something-something-v1-"
            ),
        },
        lists={
            "train": [("rawframes/100218", (2,)), ("rawframes/7", (names.index(comma),))],
            "val": [("rawframes/24413", (0,))],
        },
        missing={"val": 1, "test": 1},
    )


def sthv2(clips: Clips) -> Mini:
    """Each piece a zip; ids are text; the class is the template without brackets; answers of the test split."""
    a, b, c, d = clips.videos
    names = load_class_names("sthv2")
    upright = next(name for name in names if name.startswith("Putting something that cannot actually stand upright"))

    def video(key: str, template: str) -> dict[str, object]:
        return {"id": key, "label": "of this video", "template": template, "placeholders": ["potato"]}

    long = upright.replace(
        "something that cannot actually stand upright", "[something that cannot actually stand upright]"
    )
    train = [video("78687", "Holding [something] next to [something]"), video("5", long)]
    labels = {
        "labels/labels.json": json.dumps({name: str(row) for row, name in enumerate(names)}).encode(),
        "labels/train.json": json.dumps(train).encode(),
        "labels/validation.json": json.dumps([video("42326", long), video("9", long)]).encode(),
        "labels/test.json": json.dumps([{"id": "3"}]).encode(),
        "labels/test-answers.csv": lines(f"3;{names[1]}"),
    }
    whole = targz(
        {
            f"20bn-something-something-v2/{key}.webm": v
            for key, v in zip(("78687", "5", "42326", "3"), (a, b, c, d), strict=True)
        }
    )
    stem = "20bn-something-something-v2-"
    return Mini(
        placed={
            "20bn-something-something-download-package-labels.zip": zipped(labels),
            **_parts(whole, stem, zip_each=True),
        },
        lists={
            "train": [
                ("videos/78687.webm", (names.index("Holding something next to something"),)),
                ("videos/5.webm", (names.index(upright),)),
            ],
            "val": [("videos/42326.webm", (names.index(upright),))],
            "test": [("videos/3.webm", (1,))],
        },
        missing={"val": 1},
    )


def diving48(clips: Clips) -> Mini:
    """Class 30 has no video; names that start with a hyphen."""
    a, b, c, _ = clips.videos
    folder = "/projects/resound"
    vocabulary = [name.split("+") for name in load_class_names("diving48")]

    def video(name: str, label: int) -> dict[str, object]:
        return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 19}

    train = [video("-mmq0PT-u8k_00155", 0), video("-mmq0PT-u8k_00156", 47), video("gone_00001", 3)]
    return Mini(
        served={
            f"{folder}/Diving48_vocab.json": json.dumps(vocabulary).encode(),
            f"{folder}/Diving48_V2_train.json": json.dumps(train).encode(),
            f"{folder}/Diving48_V2_test.json": json.dumps([video("x_00001", 29)]).encode(),
            f"{folder}/Diving48_rgb.tar.gz": targz(
                {"rgb/-mmq0PT-u8k_00155.mp4": a, "rgb/-mmq0PT-u8k_00156.mp4": b, "rgb/x_00001.mp4": c}
            ),
        },
        lists={
            "train": [("videos/-mmq0PT-u8k_00155.mp4", (0,)), ("videos/-mmq0PT-u8k_00156.mp4", (47,))],
            "val": [("videos/x_00001.mp4", (29,))],
        },
        missing={"train": 1},
    )


def jester(clips: Clips) -> Mini:
    """A copy of labels.csv with two classes swapped counts, and is told; pieces as Qualcomm calls them."""
    names = load_class_names("jester")
    names[4], names[5] = names[5], names[4]
    return Mini(
        placed={
            "annotations/labels.csv": lines(*names),
            "annotations/train.csv": lines("34870;Pushing Hand Away", "9;Drumming Fingers"),
            "annotations/validation.csv": lines("56557;Sliding Two Fingers Right", "1;Drumming Fingers"),
            **_parts(_frames(clips, "20bn-jester-v1", "34870", "9", "56557"), "20bnjester-v1-"),
        },
        lists={
            "train": [
                ("rawframes/34870", (names.index("Pushing Hand Away"),)),
                ("rawframes/9", (names.index("Drumming Fingers"),)),
            ],
            "val": [("rawframes/56557", (names.index("Sliding Two Fingers Right"),))],
        },
        missing={"val": 1},
        notes=["the classes are numbered as in"],
    )


def mit(clips: Clips) -> Mini:
    """The same file name in two classes; classes with + in them; a list of classes of v2."""
    a, b, c, d = clips.videos
    names = [name for name in load_class_names("mit_v1") if name not in ("praying",)]
    top = "Moments_in_Time_Raw_v2"
    singing = "adult+female+singing"
    files = {
        f"{top}/training/{singing}/0-3-6_5.mp4": a,
        f"{top}/training/blocking/0-3-6_5.mp4": b,
        f"{top}/validation/blocking/getty-karate_4.mp4": c,
        f"{top}/training/blocking/unlisted.mp4": d,
        f"{top}/moments_categories.txt": lines(*(f"{name},{row}" for row, name in enumerate(names))),
        f"{top}/trainingSet.csv": lines(f"{singing}/0-3-6_5.mp4,{singing},3,0", "blocking/0-3-6_5.mp4,blocking,4,1"),
        f"{top}/validationSet.csv": lines("blocking/getty-karate_4.mp4,blocking,3,0", "blocking/gone.mp4,blocking,3,0"),
        f"{top}/license.txt": b"-",
    }
    return Mini(
        placed={"Moments_in_Time_Raw_v2.zip": zipped(files)},
        lists={
            "train": [
                (f"videos/training/{singing}/0-3-6_5.mp4", (names.index(singing),)),
                ("videos/training/blocking/0-3-6_5.mp4", (names.index("blocking"),)),
            ],
            "val": [("videos/validation/blocking/getty-karate_4.mp4", (names.index("blocking"),))],
        },
        missing={"val": 1},
        notes=["the classes are numbered as in"],
    )


def mmit(clips: Clips) -> Mini:
    """Several labels a video, of which the folder is one; classes with / in their names."""
    a, b, c, _ = clips.videos
    names = load_class_names("mmit_v1")
    top = "Multi_Moments_in_Time_Raw"
    files = {
        f"{top}/videos/adult+female+singing/0-3-6_5.mp4": a,
        f"{top}/videos/adult+female+singing/yt-zxQ_56.mp4": b,
        f"{top}/videos/barking/yt-1.mp4": c,
        f"{top}/moments_categories.txt": lines(*(f"{name},{row}" for row, name in enumerate(names))),
        f"{top}/trainingSet.txt": lines(
            "adult+female+singing/0-3-6_5.mp4,41,130", "adult+female+singing/yt-zxQ_56.mp4,41"
        ),
        f"{top}/validationSet.txt": lines("barking/yt-1.mp4,2,3,41", "barking/gone.mp4,7"),
    }
    return Mini(
        placed={"Multi_Moments_in_Time_Raw.zip": zipped(files)},
        lists={
            "train": [("singing/0-3-6_5.mp4", (41, 130)), ("singing/yt-zxQ_56.mp4", (41,))],
            "val": [("videos/barking/yt-1.mp4", (2, 3, 41))],
        },
        missing={"val": 1},
        is_multi_label=True,
    )


def hvu(clips: Clips) -> Mini:
    """Tags in groups, each with its own numbers; half seconds in names; clips named in tenths and in seconds."""
    a, b, c, _ = clips.videos
    base = "/holistic-video-understanding/HVU-Dataset/raw/master"
    groups = ("action", "attribute", "concept", "event", "object", "scene")
    tags = {group: load_class_names(f"hvu_{group}") for group in groups}
    categories = [f"{tag},{group}" for group in reversed(groups) for tag in reversed(tags[group])]
    header = "Tags,youtube_id,time_start,time_end"
    action, scene = tags["action"], tags["scene"]
    train = [
        f"{action[9]}|{scene[3]}|{action[4]},gD_G1b0wV5I,101.5,103.5",
        f"{action[180]},--7VUM9MKg4,136,146",
    ]
    val = [f"{scene[7]}|{action[9]}|no such tag,-val_-_____,0.5,10.5", f"{action[1]},gone_______,0,10"]
    return Mini(
        served={
            f"{base}/HVU_Train_V1.0.zip": zipped({"HVU_Train_V1.0.csv": lines(header, *train)}),
            f"{base}/HVU_Val_V1.0.zip": zipped({"HVU_Val_V1.0.csv": lines(header, *val)}),
            f"{base}/HVU_Tags_Categories_V1.0.csv": lines("Tag,Category", *categories),
        },
        placed={
            "videos_train/gD_G1b0wV5I_001015_001035.mp4": a,
            "videos_train/--7VUM9MKg4_000136_000146.mp4": b,
            "videos_val/-val_-______000005_000105.mp4": c,
        },
        lists={
            "action/train": [("gD_G1b0wV5I_001015_001035.mp4", (9, 4)), ("--7VUM9MKg4_000136_000146.mp4", (180,))],
            "action/val": [("videos_val/-val_-______000005_000105.mp4", (9,))],
            "scene/train": [("gD_G1b0wV5I_001015_001035.mp4", (3,))],
            "scene/val": [("videos_val/-val_-______000005_000105.mp4", (7,))],
        },
        missing={"val": 1},
        is_multi_label=True,
        notes=["1 tag in no group"],
    )


def omnisource(clips: Clips) -> Mini:
    """Classes come with the data; videos of the web, and raw videos cut into pieces that all have the same names."""
    a, b, c, d = clips.videos
    names = [f"action {row}" for row in range(200)]
    raw = [
        {"video_dir": "D32_1gwq35E", "label": 66, "num_clips": 10, "positive_clip_inds": [0, 2]},
        {"video_dir": "4uZ27ivBl00", "label": 5, "num_clips": 2, "positive_clip_inds": [0]},
    ]
    folder = "annotations/kinetics_200"
    return Mini(
        placed={
            f"{folder}/k200_train.txt": lines("aaaaaaaaaaa.mp4 0", "-bbbbbbbbbb.mp4 199"),
            f"{folder}/k200_val.txt": lines("ccccccccccc.mp4 7", "gone_______.mp4 7"),
            "annotations/k200_actions.txt": lines(*names),
            "annotations/insvideo_200/slowonly_8x8_insvideo_200_wodup.txt": lines("000/00/000001.mp4 3"),
            "annotations/kinetics_raw_200/slowonly_8x8_kinetics_raw_200.json": json.dumps(raw).encode(),
            "archives/k200_train.tar": tar(
                {"kinetics_200_train/aaaaaaaaaaa.mp4": a, "kinetics_200_train/-bbbbbbbbbb.mp4": b}
            ),
            "archives/k200_val.tar": tar({"kinetics_200_val/ccccccccccc.mp4": c}),
            "annotations/googleimage_200/tsn_8seg_googleimage_200_wodup.txt": lines("000/00/000001.jpg 0"),
            "googleimage_200/000/00/000001.jpg": clips.frames[0]["00001.jpg"],
            "insvideo_200/000/00/000001.mp4": d,
            "kinetics_raw_200_train/D32_1gwq35E/part_0.mp4": b,
            "kinetics_raw_200_train/D32_1gwq35E/part_2.mp4": c,
            "kinetics_raw_200_train/4uZ27ivBl00/part_0.mp4": a,
        },
        lists={
            "train": [("aaaaaaaaaaa.mp4", (0,)), ("-bbbbbbbbbb.mp4", (199,))],
            "val": [("kinetics_200_val/ccccccccccc.mp4", (7,))],
            "train_insvideo": [("insvideo_200/000/00/000001.mp4", (3,))],
            "train_raw": [
                ("D32_1gwq35E/part_0.mp4", (66,)),
                ("D32_1gwq35E/part_2.mp4", (66,)),
                ("4uZ27ivBl00/part_0.mp4", (5,)),
            ],
        },
        missing={"val": 1},
        notes=["googleimage_200 not used: training reads videos"],
    )


MINIATURES = {
    "hmdb51": hmdb51,
    "ucf101": ucf101,
    "activitynet": activitynet,
    "kinetics400": kinetics400,
    "kinetics600": kinetics600,
    "kinetics700": kinetics700,
    "kinetics700-2020": kinetics700_2020,
    "sthv1": sthv1,
    "sthv2": sthv2,
    "diving48": diving48,
    "jester": jester,
    "mit": mit,
    "mmit": mmit,
    "hvu": hvu,
    "omnisource": omnisource,
}
