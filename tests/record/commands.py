"""The command lines of the record, as data: name -> lines that run one after the other in one empty folder.

`in/` is the folder of inputs that inputs.py makes. `< TEXT` is the stdin of the next line; `+ NAME` copies an input, so
that what a command writes into it is kept.
"""

MINI = "--preset in/mini.yaml --weights in/mini.pt --offline"
TRAIN = "train --preset in/mini.yaml --data in/train.csv --data in/val.csv --offline --set runtime.num_workers=1"
TOKENS = " ".join(
    f"--set {text}"
    for text in ("model.token_head=true", "train.mixup_alpha=0", "train.cutmix_alpha=0", "train.rand_augment_ops=0")
)
WRITE = "tokenlabel write --preset in/mini.yaml --data in/train.csv --teacher in/mini.pt --output labels --offline"

COMMANDS: dict[str, list[str]] = {
    **{
        f"help {name}".strip(): [f"{name} --help"]
        for name in (
            *("", "predict", "gradcam", "train", "eval", "flops", "download", "prepare"),
            *("tokenlabel", "tokenlabel write", "tokenlabel show"),
        )
    },
    "version": ["--version"],
    "usage": ["nothing", "predict --nothing", "predict --top-k 0", "prepare", "gradcam a b"],
    # predict
    "predict one": [f"predict in/clip.mp4 {MINI}"],
    "predict kinds": [f"predict in/clip.mp4 in/b.avi in/vp9.webm in/clip.ts in/moving.gif in/frames --json {MINI}"],
    "predict rotated": [f"predict in/rotated.mp4 --json {MINI}"],
    "predict names": [
        f"predict 'in/with space.mp4' \"in/it's.mp4\" in/naïve.mp4 {MINI}",
        f"predict {MINI} -- in/-dash.mp4",
    ],
    "predict broken": [f"predict in/clip.mp4 in/cut.mp4 in/empty.mp4 in/text.mp4 in/page.html in/none.mp4 {MINI}"],
    "predict broken json": [f"predict in/cut.mp4 in/garbled.mp4 in/empty.mp4 in/text.mp4 --json {MINI}"],
    "predict glob": [f"predict 'in/*.avi' {MINI}", f"predict 'in/*.xyz' {MINI}"],
    "predict folder": [f"predict in/classes --csv out.csv --top-k 2 {MINI}"],
    "predict list": [f"predict @in/paths.txt --json {MINI}", f"predict @in/none.csv {MINI}"],
    "predict stdin": ["< in/clip.mp4\nin/b.avi\n", f"predict - {MINI}", "< ", f"predict - {MINI}"],
    "predict outputs": [
        f"predict in/clip.mp4 --csv a.csv --srt a.srt --save a.gif --features a.npz --json {MINI}",
        f"predict in/clip.mp4 --csv a.csv {MINI}",
        f"predict in/clip.mp4 --csv a.csv --top-k 1 --overwrite {MINI}",
    ],
    "predict save": [
        f"predict in/clip.mp4 --save a.mp4 {MINI}",
        f"predict in/clip.mp4 in/b.avi --save . --srt . {MINI}",
    ],
    "predict every": [f"predict in/long.mp4 --every 1 --csv a.csv --srt a.srt --features a.npz --json {MINI}"],
    "predict every errors": [f"predict in/clip.mp4 --every 0 {MINI}", f"predict in/clip.mp4 --every -1 {MINI}"],
    "predict views": [f"predict in/clip.mp4 --views 3x3 --json {MINI}", f"predict in/clip.mp4 --views 3 {MINI}"],
    "predict nodir": [
        f"predict in/clip.mp4 --csv none/a.csv {MINI}",
        f"predict in/clip.mp4 --csv in/clip.mp4/a.csv {MINI}",
    ],
    "predict suffix": [f"predict in/clip.mp4 --save a.txt {MINI}", f"predict in/clip.mp4 --features a.csv {MINI}"],
    "predict weights": [
        f"predict in/clip.mp4 --preset in/mini.yaml --weights {weights} --offline"
        for weights in ("random", "in/none.pt", "in/text.mp4", "in/cut.pt", "published")
    ],
    "predict decord": [f"predict in/clip.mp4 in/b.avi in/garbled.mp4 --json --set data.decoder=decord {MINI}"],
    "predict two processes": [f"predict in/clip.mp4 in/cut.mp4 in/b.avi --cpu-processes 2 --json {MINI}"],
    "predict built-in": ["predict --offline", "predict in/clip.mp4 --json --offline"],
    "print-config": [f"{name} --print-config --preset in/mini.yaml" for name in ("predict", "train", "eval")],
    "set errors": [
        f"predict in/clip.mp4 {MINI} --set {text}"
        for text in (
            *("data.clip.num_frames=x", "data.clip.nothing=1", "nothing", "data.clip.num_frames=0"),
            *("data.crop_size=48", "model.num_classes=5", "data.decoder=x", "runtime.device=x"),
        )
    ],
    "preset errors": [
        f"flops --preset {name}" for name in ("nothing", "in/none.yaml", "in/bad.yaml", "in/unknown.yaml")
    ],
    # gradcam
    "gradcam layers": [f"gradcam --list-layers {MINI}", f"gradcam --list-layers --json {MINI}"],
    "gradcam default": [f"gradcam in/clip.mp4 {MINI}", f"gradcam in/clip.mp4 {MINI}"],
    "gradcam npz": [f"gradcam in/clip.mp4 --layer 2/0 --class jump --out a.png --npz a.npz --json {MINI}"],
    "gradcam mp4": [f"gradcam in/b.avi --side-by-side --score probability --colormap turbo --out a.mp4 {MINI}"],
    "gradcam views": [f"gradcam in/frames --views 2x1 --concatenate --out a.gif {MINI}"],
    "gradcam deletion": [f"gradcam in/clip.mp4 --deletion --out a.png --json {MINI}"],
    "gradcam errors": [
        f"gradcam in/clip.mp4 {options} {MINI}"
        for options in ("--layer 9/9", "--layer x", "--class nothing", "--class 99", "--alpha 2", "--out a.txt")
    ],
    "gradcam broken": [f"gradcam in/cut.mp4 --out a.gif {MINI}", f"gradcam in/none.mp4 --out a.gif {MINI}"],
    # train
    "train dry run": [f"{TRAIN} --dry-run"],
    "train": [f"{TRAIN} --output run", f"{TRAIN} --output run", f"{TRAIN} --output run --resume"],
    "train resume": [
        f"{TRAIN} --output run --set train.epochs=1",
        f"{TRAIN} --output run --resume --set train.epochs=2",
    ],
    "train two processes": [f"{TRAIN} --output run --cpu-processes 2"],
    "train init": [f"{TRAIN} --output run --init-from in/mini.pt", f"{TRAIN} --output run2 --init-from in/none.pt"],
    "train augmented": [
        f"{TRAIN} --output run --set data.clip.sampling=segments --set train.repeats=2 --set train.class_balanced=true "
        "--set train.mixup_alpha=0.8 --set train.cutmix_alpha=1 --set train.rand_augment_ops=2 "
        "--set train.random_erasing=0.5 --set train.label_smoothing=0.1"
    ],
    "train optimizer": [
        f"{TRAIN} --output run --set train.optimizer=muon --set train.clip_grad_norm=1 --set train.layer_decay=0.8 "
        "--set train.ema_decay=0.9 --set train.warmup_epochs=0.5 --set train.frozen_stages=1 "
        "--set train.batch_norm=synchronized --set train.best_metric=loss --set model.gradient_checkpointing=true"
    ],
    "train multi-label": [
        f"{TRAIN} --output run --set data.multi_label=true {text}".replace("train.csv", "multi.csv").replace(
            "val", "multi"
        )
        for text in ("", "--set train.best_metric=mean_average_precision")
    ],
    "train rendered": ["train --preset in/rendered.yaml --output run --offline --set runtime.num_workers=1 --seed 3"],
    "train errors": [
        "train --preset in/mini.yaml --output run --offline",
        "train --preset in/mini.yaml --data in/none.csv --output run --offline",
        "train --preset in/mini.yaml --data in/mistakes.csv --output run --offline",
        f"{TRAIN} --output run --resume",
        f"{TRAIN} --output in/clip.mp4",
        f"{TRAIN} --output run --set train.lr=x",
    ],
    "train broken video": [TRAIN.replace("train.csv", "partly.csv") + " --output run"],
    # eval
    "eval": [f"eval --data in/val.csv {MINI}", f"eval --data in/val.csv --json {MINI}"],
    "eval dump": [
        f"eval --data in/val.csv --dump a.jsonl --report a.html --json {MINI}",
        f"eval --from-dump a.jsonl --data in/val.csv --report b.html {MINI}",
        f"eval --from-dump a.jsonl --compare a.jsonl {MINI}",
        f"eval --data in/val.csv --dump a.jsonl {MINI}",
    ],
    "eval views": [f"eval --data in/val.csv --views 3x3 --dump a.jsonl {MINI}"],
    "eval two processes": [f"eval --data in/val.csv --cpu-processes 2 --dump a.jsonl --json {MINI}"],
    "eval permuted": ["eval --data in/val.csv --preset in/permuted.yaml --weights in/mini.pt --offline --json"],
    "eval missing": [f"eval --data in/partly.csv --dump a.jsonl --json {MINI}"],
    "eval lists": [
        f"eval --data in/{name} {MINI}" for name in ("video.txt", "unlabelled.txt", "tabs.tsv", "mistakes.csv")
    ],
    "eval older lists": [
        f"eval --data in/{name} {MINI}"
        for name in ("rawframe.txt", "offset.txt --set data.list_format=rawframe_offset", "list.json", "names.csv")
    ],
    "eval multi-label": [
        f"eval --data in/{name} --set data.multi_label=true --json {MINI}"
        for name in ("multi.txt", "multi.txt --set data.list_format=multilabel_video", "multi.csv")
    ],
    "eval nodir": [
        f"eval --data in/val.csv --dump none/a.jsonl {MINI}",
        f"eval --data in/val.csv --report none/a.html {MINI}",
    ],
    "eval errors": [f"eval {MINI}", f"eval --from-dump in/text.mp4 {MINI}", f"eval --data in/empty.mp4 {MINI}"],
    # flops
    "flops": ["flops tiny", "flops small", "flops base --views 4x3", "flops in/mini.yaml --by-module"],
    "flops json": ["flops k400-tiny --json --by-module", "flops nothing", "flops tiny --set model.num_heads=3"],
    # download
    "download list": ["download --list --offline", "download --list --json --offline"],
    "download dry run": ["download ucf101 --dry-run --offline", "download kinetics400 --dry-run --offline --json"],
    "download errors": ["download nothing --offline", "download --offline", "download ucf101 --offline --root data"],
    # prepare
    "prepare dry run": ["prepare in/classes --root out --dry-run --workers 1"],
    "prepare": ["prepare in/classes --root out --workers 1", "prepare in/classes --root out --workers 1"],
    "prepare check": ["prepare in/classes --root out --check --json --workers 1"],
    "prepare transcode": ["prepare in/classes --root out --transcode --short-side 32 --workers 1"],
    "prepare frames": ["prepare in/classes --root out --frames --short-side 32 --split 0.5/0.25/0.25 --workers 1"],
    "prepare formats": [
        "prepare in/classes --root out --formats video,json --workers 1",
        "prepare in/classes --root b --formats x",
    ],
    "prepare labels": ["prepare in/classes --root out --labels in/labels.csv --layout table --workers 1"],
    "prepare estimate": [
        f"prepare in/classes --root out --dry-run --workers 1 {text}" for text in ("--transcode", "--frames")
    ],
    "prepare list": [
        "prepare in/train.csv in/val.csv --root out --formats rawframe --frames --workers 1",
        "prepare in/train.csv in/val.csv --root d --formats json --workers 1",
        "prepare in/partly.csv --root b --workers 1",
        "prepare in/mistakes.csv --root c --workers 1",
    ],
    "prepare multi-label": ["prepare in/classes --root out --labels in/several.csv --multi-label --json --workers 1"],
    "prepare dataset": [
        "+ data",
        "prepare ucf101 --workers 1",
        "prepare kinetics400 --workers 1 --json",
        "prepare sthv2 --workers 1 --formats video",
        "prepare hmdb51 --workers 1",
    ],
    "download what is there": [
        "+ data",
        "download ucf101 kinetics400 --dry-run --offline",
        "download ucf101 kinetics400 sthv2 --offline",
        "download --list --offline",
    ],
    "prepare groups": ["prepare in/classes --root out --group-pattern '[0-9]+' --seed 3 --workers 1"],
    "prepare show": ["prepare in/classes --root out --show sheet.png --preset in/mini.yaml --workers 1"],
    "prepare broken": ["prepare in/broken --root out --check --workers 1"],
    "prepare errors": [
        "prepare in/none",
        "prepare in/clip.mp4",
        "prepare in/classes --split 2/1",
        "prepare in/classes --crf 99",
    ],
    "prepare camera-motion": [
        "prepare camera-motion --count 8 --root out",
        "prepare camera-motion --count 100 --num-frames 4 --root out --show sheet.png",
        "prepare camera-motion --count 100 --num-frames 4 --root out --workers 1 --dry-run",
        "prepare camera-motion --count 100 --num-frames 4 --root out --workers 1",
    ],
    # tokenlabel
    "tokenlabel show": [
        f"tokenlabel show in/clip.mp4 --out a.png --json {MINI}",
        f"tokenlabel show in/clip.mp4 --out a.png {MINI}",
        f"tokenlabel show in/b.avi --out b.png --frames 2 {MINI}",
    ],
    "tokenlabel show errors": [
        f"tokenlabel show in/cut.mp4 {MINI}",
        f"tokenlabel show in/clip.mp4 --out none/a.png {MINI}",
    ],
    "tokenlabel write": [
        f"{WRITE} --dry-run",
        WRITE,
        f"{TRAIN} --token-labels labels --output run {TOKENS}",
    ],
    "tokenlabel write errors": ["tokenlabel write --preset in/mini.yaml --data in/train.csv --offline"],
    "train teacher": [f"{TRAIN} --teacher in/mini.pt --output run {TOKENS}"],
}
