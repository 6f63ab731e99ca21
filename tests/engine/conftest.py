"""The fixtures of toy_training.py, which tests of the engine and of tasks share."""

from toy_training import (
    label_writer,
    make_teacher,
    make_trainer,
    one_clip_list,
    one_thread,
    part_of,
    teacher_file,
    toy_list,
    toy_preset,
    toy_validation,
    write_labels,
)

__all__ = [
    "label_writer",
    "make_teacher",
    "make_trainer",
    "one_clip_list",
    "one_thread",
    "part_of",
    "teacher_file",
    "toy_list",
    "toy_preset",
    "toy_validation",
    "write_labels",
]
