"""Every configuration key with its type, default, unit and check. A RunConfig is one run, fully described.

The dataclasses are the only home of a default. `config/load.py` turns presets and overrides into them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Literal, get_args

from dualformer_cli.config.metric_table import best_metrics
from dualformer_cli.config.option_defaults import (
    DECODE_TIMEOUT_SECONDS,
    RENDERED_BUSY,
    RENDERED_DIFFICULTY,
)
from dualformer_cli.errors import ConfigError

_FRAME_NAME = re.compile(r"[^{}%]*(\{:?[0-9]*d?\}|%[0-9]*d)[^{}%]*\.(jpe?g|png|bmp|webp|tiff?|ppm)", re.IGNORECASE)
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?|mps|xpu(:[0-9]{1,3})?")
_TIME = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(s|m|h|steps?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}

Kernels = Literal["auto", "triton", "torch"]

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""What files of weights end in, the preferred end first."""

RENDERED = "render:camera-motion"
"""Name of the training list whose clips are rendered while a network trains on them."""

ListFormat = Literal["video", "rawframe", "rawframe_offset", "multilabel_video", "multilabel_rawframe", "json"]
"""The formats of lists that other projects write."""
ReadFormat = Literal["auto", "manifest", ListFormat]
"""Those, the format that `prepare` writes, and any."""

Size3 = tuple[int, int, int]
"""Tokens or pixels along (time, height, width)."""
Decoder = Literal["auto", "pyav", "decord", "torchcodec", "torchcodec-cuda"]
"""The decoders there are: each but auto is the file `video/NAME_reader.py`, with _ in its name for -."""


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ConfigError(f"{name} must be at least {low}, got {value}")


def _above(name: str, value: float, low: float) -> None:
    if value <= low:
        raise ConfigError(f"{name} must be greater than {low}, got {value}")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{name} must be at least 0 and below 1, got {value}")


def _probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must be between 0 and 1, got {value}")


def _one_of(name: str, value: object, allowed: Collection[object]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network. Its token grids follow from `data.clip.num_frames` and `data.crop_size`."""

    embed_dims: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of a token in each stage."""
    depths: tuple[int, ...] = (2, 2, 10, 4)
    """Blocks in each stage; even blocks attend in local windows, odd ones to the global pyramid."""
    num_heads: tuple[int, ...] = (2, 4, 8, 16)
    """Attention heads in each stage."""
    patch_sizes: tuple[Size3, ...] = ((2, 4, 4), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    """Pixels (stage 0) or tokens (later stages) that one token covers, as (time, height, width)."""
    window_size: Size3 = (8, 7, 7)
    """Tokens of a local window; a side longer than the stage's grid is cut to it."""
    fine_grid: Size3 = (8, 7, 7)
    """Pyramid tokens of the fine level; a stage whose grid is this small or smaller in space attends to all tokens."""
    coarse_grid: Size3 = (4, 4, 4)
    """Pyramid tokens of the coarse level, in stages whose grid is at least 4 fine grids high and wide."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP over its embed_dim."""
    num_classes: int = 400
    """Outputs of the classifier."""
    dropout: float = 0.5
    """Dropout before the classifier, in training."""
    drop_path: float = 0.1
    """Stochastic depth of the last block; it rises linearly from 0."""
    token_head: bool = False
    """Whether the model has the second classifier of token labelling, one prediction per token."""
    motion_vote: bool = False
    """Whether what most tokens say of the motion is added to a clip's features; rendered clips teach it that motion."""
    start: Literal["published", "motion"] = "published"
    """Initial values without other weights: the published ones, or those from which motion is learnt quickly."""
    gradient_checkpointing: bool = False
    """Recompute each block's activations in the backward pass instead of storing them."""

    def __post_init__(self) -> None:
        stages = len(self.embed_dims)
        for name in ("embed_dims", "depths", "num_heads"):
            values = getattr(self, name)
            if len(values) != stages:
                raise ConfigError(f"{name} must have one value per stage ({stages}), got {list(values)}")
            if not values or min(values) < 1:
                raise ConfigError(f"{name} must be positive in every stage, got {list(values)}")
        if len(self.patch_sizes) != stages:
            raise ConfigError(f"patch_sizes must have one size per stage ({stages}), got {len(self.patch_sizes)}")
        for name in ("window_size", "fine_grid", "coarse_grid"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"{name} must be positive, got {list(getattr(self, name))}")
        for dim, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if dim % heads:
                raise ConfigError(f"embed_dims must divide into num_heads, got {dim} channels and {heads} heads")
        _above("mlp_ratio", self.mlp_ratio, 0)
        if not 1 <= self.num_classes <= 10**6:
            raise ConfigError(f"num_classes must be from 1 to 1,000,000, got {self.num_classes}")
        _one_of("start", self.start, ("published", "motion"))
        _fraction("dropout", self.dropout)
        _fraction("drop_path", self.drop_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Which frames make a clip."""

    num_frames: int = 32
    """Frames in one clip."""
    frame_interval: int = 2
    """Step between sampled frames, in source frames; 2 takes every other frame."""
    sampling: Literal["interval", "segments"] = "interval"
    """interval: num_frames frames, one every frame_interval. segments: one frame from each of num_frames equal
    parts of the video, as usual for Something-Something; frame_interval and num_clips are then ignored."""

    def __post_init__(self) -> None:
        _at_least("num_frames", self.num_frames, 1)
        _at_least("frame_interval", self.frame_interval, 1)
        _one_of("sampling", self.sampling, ("interval", "segments"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsConfig:
    """How a video is cut into views for scoring."""

    num_clips: int = 4
    """Clips, spread evenly over the video."""
    num_crops: Literal[1, 3] = 1
    """Crops of each clip: 1 is the centre; 3 are left or top, right or bottom, centre."""
    short_side: int = 224
    """Frames are resized to this short side before the crop, in pixels."""

    def __post_init__(self) -> None:
        _at_least("num_clips", self.num_clips, 1)
        _one_of("num_crops", self.num_crops, (1, 3))
        _at_least("short_side", self.short_side, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainClipsConfig:
    """How training cuts its random clips."""

    short_side: int = 256
    """Frames are resized to this short side before the crop, in pixels."""
    area: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's share of the frame."""
    aspect: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's width over height."""
    flip: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        _at_least("short_side", self.short_side, 1)
        for name in ("area", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} must be two positive numbers in order, got {[low, high]}")
        if self.area[1] > 1:
            raise ConfigError(f"area must not exceed 1, got {self.area[1]}")
        _probability("flip", self.flip)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderConfig:
    """Clips that are rendered while training, where the training list is render:camera-motion."""

    num_clips: int = 10_000
    """Clips of an epoch; no two of a run are equal."""
    difficulty: float = RENDERED_DIFFICULTY
    """The most that is in the way of seeing the motion, 0 to 1."""
    easy_epochs: float = 0.0
    """Epochs over which the difficulty rises from 0."""
    without_motion: float = 0.04
    """Share of clips of noise, of one colour, with a cut, or of mixed motion, which are to be equally likely of every
    class."""
    busy: float = RENDERED_BUSY
    """Share of the clips in which much moves before the camera."""
    static_turns: int = 1
    """Turns of static while each other class has one: cameras that stand still are the most common, and look like any
    other where much moves."""
    pictures: tuple[str, ...] = ()
    """Folders of pictures to move over besides drawn ones; scikit-image stands for the photographs of that package."""

    def __post_init__(self) -> None:
        _at_least("num_clips", self.num_clips, 1)
        _probability("difficulty", self.difficulty)
        _at_least("easy_epochs", self.easy_epochs, 0)
        _fraction("without_motion", self.without_motion)
        _probability("busy", self.busy)
        _at_least("static_turns", self.static_turns, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """From a file on disk to normalised clips."""

    classes: str | None = None
    """Class names: a list that the package ships (kinetics400), or a text file with one name a line."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    crop_size: int = 224
    """Height and width of a crop, in pixels."""
    antialias: bool = True
    """Antialias when frames shrink by more than 1.5x; the published recipe does not."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from red, green, blue, in grey levels."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Divides red, green, blue after the mean is subtracted, in grey levels."""
    train_list: str | None = None
    """Training list: a manifest, one of the older list formats, or render:camera-motion for clips made on the fly."""
    render: RenderConfig = field(default_factory=RenderConfig)
    """Clips made on the fly."""
    validation_list: str | None = None
    """List that is validated during training, and that eval scores."""
    root: str | None = None
    """Folder that relative paths of the lists start from; by default the list's own."""
    list_format: ReadFormat = "auto"
    """Format of the lists; auto looks at them."""
    label_group: str | None = None
    """Group of labels to take, where those of a JSON list come in groups, as HVU's do: action, scene, ..."""
    multi_label: bool = False
    """Whether a video has several labels: sigmoid scores, binary cross-entropy and mAP."""
    train: TrainClipsConfig = field(default_factory=TrainClipsConfig)
    """Random clips of training."""
    test: ViewsConfig = field(default_factory=ViewsConfig)
    """Views of eval and predict."""
    validation: ViewsConfig = field(default_factory=lambda: ViewsConfig(num_clips=1, short_side=256))
    """Views of the validation during training."""
    min_frames: int = 2
    """A video with fewer frames is too short; a clip longer than the video wraps around."""
    frame_rate: float | None = None
    """Frames per second of a folder of frames, which does not say; None leaves its times unknown."""
    frame_name: str | None = None
    """How the frames in a folder of them are called, such as img_{:05}.jpg; None finds the one series of images."""
    decoder: Decoder = "auto"
    """Library that decodes; auto is PyAV, else decord."""
    decode_timeout_seconds: float = DECODE_TIMEOUT_SECONDS
    """A file on which the decoder makes no progress for so long is given up."""

    def __post_init__(self) -> None:
        _at_least("crop_size", self.crop_size, 1)
        for name, views in (("test", self.test), ("validation", self.validation)):
            if views.short_side < self.crop_size:
                raise ConfigError(
                    f"{name}.short_side must be at least crop_size ({self.crop_size}), got {views.short_side}"
                )
        if min(self.std) <= 0:
            raise ConfigError(f"std must be positive, got {list(self.std)}")
        _at_least("min_frames", self.min_frames, 1)
        if self.frame_rate is not None:
            _above("frame_rate", self.frame_rate, 0)
        if self.frame_name is not None and not _FRAME_NAME.fullmatch(self.frame_name):
            raise ConfigError(
                f"frame_name must have one place for a number, as img_{{:05}}.jpg, got {self.frame_name!r}"
            )
        _one_of("decoder", self.decoder, get_args(Decoder))
        _above("decode_timeout_seconds", self.decode_timeout_seconds, 0)

    def clips_of(self, views: ViewsConfig) -> int:
        """Return how many clips of a video are scored: where they are of segments one, whatever `views` says."""
        return 1 if self.clip.sampling == "segments" else views.num_clips


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The recipe of a training run."""

    epochs: int = 30
    """Passes over the training list."""
    warmup_epochs: float = 2.5
    """Epochs during which the learning rate rises from a tenth of its curve."""
    lr: float = 1e-3
    """Peak learning rate, for global_batch_size clips per step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw, as published; muon updates the matrices of the blocks by Muon and the rest by AdamW, and learns from
    nothing in half as many steps."""
    backbone_lr_scale: float = 0.1
    """The backbone's learning rate over the classifier's."""
    weight_decay: float = 0.02
    """The optimizer's decoupled weight decay."""
    decay_norms: bool = True
    """Whether norms and biases decay too, as they did in the published runs; false is what their configs meant."""
    batch_size: int = 8
    """Clips per process in one forward pass."""
    global_batch_size: int = 64
    """Clips per optimizer step over all processes and accumulated passes."""
    clip_grad_norm: float | None = None
    """Gradients are scaled down to this norm; None leaves them."""
    label_smoothing: float = 0.0
    """Share of a label's probability that is spread over all classes."""
    motion_weight: float = 0.0
    """Weight of teaching the motion at the tokens, summed over the stages, beside the classification. Only clips that
    are rendered while training know theirs; heads for it are in the model during training alone."""
    mixup_alpha: float = 0.0
    """Beta parameter of mixup; 0 is off."""
    cutmix_alpha: float = 0.0
    """Beta parameter of cutmix; 0 is off. With mixup too, each batch takes one of them."""
    rand_augment_ops: int = 0
    """RandAugment operations per clip; 0 is off."""
    rand_augment_magnitude: int = 9
    """Strength of RandAugment, 0 to 10."""
    random_erasing: float = 0.0
    """Probability of erasing a box from a clip."""
    repeats: int = 1
    """Clips taken from a video each time it is opened (repeated augmentation)."""
    layer_decay: float = 1.0
    """Learning rate of a block over that of the block after it."""
    class_balanced: bool = False
    """Draw every class equally often instead of every video."""
    frozen_stages: int = 0
    """The first stages whose weights stay as they are."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights, which validation and checkpoints then use too; 0 is off."""
    batch_norm: Literal["per_rank", "synchronized", "frozen"] = "per_rank"
    """Statistics of the coarse pyramid level: of each process (the published runs), of all, or as loaded."""
    max_unreadable: float = 0.05
    """The run stops when more than this share of an epoch's videos cannot be read."""
    validate_every: int = 1
    """Epochs between validations; the last epoch always has one."""
    best_metric: str = "top1"
    """Validation metric that chooses the best checkpoint."""
    save_every: str = "5m"
    """Time between saves of the last checkpoint, beside the one after every epoch, such as 30s, 5m or 1h; or a number
    of steps, such as 500 steps."""
    keep_epochs: int = 3
    """Epoch checkpoints that are kept."""
    log_every_steps: int = 20
    """Steps between lines of the log."""
    init_from: str | None = None
    """Preset whose published weights, or file whose weights, the run starts from."""
    pretrained_2d: str | None = None
    """Image weights to inflate: a file, or timm for Twins-SVT."""
    teacher: str | None = None
    """Frozen model that labels every token on the fly: a preset with published weights, or a file of weights."""
    teacher_preset: str | None = None
    """Preset that describes a teacher's file; None takes what the file says, or the preset of its size and classes."""
    token_labels: str | None = None
    """Folder of a teacher's labels that tokenlabel write has stored, in place of the teacher."""
    token_gamma: float = 0.5
    """Share of the classifier's loss when tokens are labelled; the token head's has the rest."""
    token_top_k: int = 5
    """The teacher's best logits of a token that are kept; all where there are fewer classes."""
    token_renormalise: bool = False
    """Share a token's mass among the kept classes only; the published runs gave every other class the logit 0."""

    def __post_init__(self) -> None:
        _one_of("best_metric", self.best_metric, best_metrics())
        _at_least("epochs", self.epochs, 1)
        _at_least("warmup_epochs", self.warmup_epochs, 0)
        _above("lr", self.lr, 0)
        if self.lr > 1:
            raise ConfigError(
                f"lr must be at most 1, got {self.lr:g}: a step of AdamW would move a weight by that much"
            )
        _at_least("backbone_lr_scale", self.backbone_lr_scale, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        _at_least("batch_size", self.batch_size, 1)
        _at_least("global_batch_size", self.global_batch_size, 1)
        if self.clip_grad_norm is not None:
            _above("clip_grad_norm", self.clip_grad_norm, 0)
        for name in ("label_smoothing", "ema_decay"):
            _fraction(name, getattr(self, name))
        for name in ("random_erasing", "max_unreadable"):
            _probability(name, getattr(self, name))
        for name in (
            "motion_weight",
            "mixup_alpha",
            "cutmix_alpha",
            "rand_augment_ops",
            "rand_augment_magnitude",
            "frozen_stages",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("repeats", "validate_every", "keep_epochs", "log_every_steps"):
            _at_least(name, getattr(self, name), 1)
        if self.rand_augment_magnitude > 10:
            raise ConfigError(f"rand_augment_magnitude must be at most 10, got {self.rand_augment_magnitude}")
        _above("layer_decay", self.layer_decay, 0)
        if self.init_from is not None and self.pretrained_2d is not None:
            raise ConfigError(
                f"init_from must be null when pretrained_2d is {self.pretrained_2d!r}, got {self.init_from!r};"
                " set one of them to null"
            )
        if self.teacher is not None and self.token_labels is not None:
            raise ConfigError(
                f"teacher must be null when token_labels is {self.token_labels!r}, got {self.teacher!r};"
                " set one of them to null"
            )
        if (self.teacher or self.token_labels) and (self.mixup_alpha or self.cutmix_alpha):
            raise ConfigError(
                "mixup_alpha and cutmix_alpha must be 0 when tokens are labelled, got "
                f"{self.mixup_alpha:g} and {self.cutmix_alpha:g}: a token of a mixed clip has no single label"
            )
        if self.token_labels and self.rand_augment_ops:
            raise ConfigError(
                f"rand_augment_ops must be 0 with token_labels, got {self.rand_augment_ops}: it moves pixels away from "
                "their stored labels; use a teacher on the fly"
            )
        _probability("token_gamma", self.token_gamma)
        _at_least("token_top_k", self.token_top_k, 1)
        self.save_interval()

    def save_interval(self) -> tuple[float, float]:
        """Return after how many seconds and after how many steps the last checkpoint is saved; one is infinite."""
        match = _TIME.fullmatch(self.save_every.strip())
        number = float(match[1]) if match else 0.0
        is_steps = match is not None and match[2] not in _SECONDS
        if match is None or number <= 0 or (is_steps and number % 1):
            raise ConfigError(
                f"save_every must be a time such as 30s, 5m or 1h, or a number of steps such as 500 steps, got "
                f"{self.save_every!r}"
            )
        return (inf, number) if is_steps else (number * _SECONDS[match[2]], inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """Where and how the run executes; nothing here changes what is computed beyond rounding."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:INDEX, mps or xpu; auto takes a CUDA GPU when there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on GPUs that have it; on a CPU bf16 where predict gains by it (a large model, and a processor with
    AVX-512 BF16 or AMX), else fp32."""
    compile: bool = False
    """Compile the model with torch.compile: slower to start; whether faster afterwards depends on the machine, as
    `flops SIZE --latency --set runtime.compile=true` shows. Off everywhere, as no card has shown it yet."""
    cuda_graphs: bool = False
    """In predict and eval on an NVIDIA card, replay the forward pass as a CUDA graph from the second time on that a
    number of views comes, for up to 4 numbers: fewer launches, more memory. No card has shown yet that it is faster."""
    kernels: Kernels = "auto"
    """What computes window attention, position, pyramid, and the norms and GELU of blocks: Triton kernels on NVIDIA
    cards that have them (auto, and triton, which also says why where it cannot), or PyTorch everywhere (torch)."""
    seed: int = 0
    """Seed of every random choice."""
    num_workers: int | None = None
    """Processes that decode videos; null is one for each core of this process, up to 8, and with a GPU one for each
    core but one."""
    exchange_timeout: str = "10m"
    """Of several processes: how long one waits for another that does not come to a step, such as 30s, 10m or 1h. A
    start with its downloads, a validation and a save take as long as they take, unless nothing is done there."""

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        _one_of("kernels", self.kernels, get_args(Kernels))
        if self.compile and self.cuda_graphs:
            raise ConfigError("compile and cuda_graphs do not go together: set one of them to false")
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"device must be auto, cpu, cuda, cuda:INDEX, mps or xpu, got {self.device!r}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be at least 0 and below 2**32, which NumPy allows, got {self.seed}")
        if self.num_workers is not None:
            _at_least("num_workers", self.num_workers, 1)
        self.exchange_seconds()

    def exchange_seconds(self) -> float:
        """Return `exchange_timeout` in seconds."""
        match = _TIME.fullmatch(self.exchange_timeout.strip())
        if match is None or match[2] not in _SECONDS or not float(match[1]):
            raise ConfigError(f"exchange_timeout must be a time such as 30s, 10m or 1h, got {self.exchange_timeout!r}")
        return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run: model, data, recipe, machine."""

    weights: str | None = None
    """published (the preset's own, fetched once), random (untrained, to try things out), or a file."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
