"""Stands for a program that unpacks rar: called as unrar, 7z, 7zz, unar or bsdtar, it unpacks stored archives.

It shares no code with the package. `RAR_FAIL` names the programs that fail; `RAR_LOG` is a file that gets one line
with the name of each that was called; `RAR_PAUSE` is the seconds that each file takes.
"""

import os
import sys
import time

name = os.path.basename(sys.argv[0])
arguments = sys.argv[1:]
if os.environ.get("RAR_LOG"):
    with open(os.environ["RAR_LOG"], "a", encoding="utf-8") as log:
        log.write(name + "\n")
if name in os.environ.get("RAR_FAIL", "").split():
    print("cannot\nbe done", file=sys.stderr)
    sys.exit(7)
if name == "unrar":
    assert arguments[0] == "x", arguments
    archive, folder = arguments[-2:]
elif name in ("7z", "7zz"):
    assert arguments[0] == "x", arguments
    archive, folder = arguments[-1], next(word[2:] for word in arguments if word.startswith("-o"))
elif name == "unar":
    archive, folder = arguments[-1], arguments[arguments.index("-o") + 1]
else:
    assert arguments[:2] == ["-x", "-f"], arguments
    archive, folder = arguments[arguments.index("-f") + 1], arguments[arguments.index("-C") + 1]

with open(archive, "rb") as file:
    data = file.read()


def number(at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def members_of_5():
    at = 8
    while at < len(data):
        length, begin = number(at + 4)
        kind, p = number(begin)
        flags, p = number(p)
        packed = 0
        if flags & 1:
            _, p = number(p)
        if flags & 2:
            packed, p = number(p)
        if kind == 2:
            file_flags, p = number(p)
            _, p = number(p)
            _, p = number(p)
            p += 4 * bool(file_flags & 2) + 4 * bool(file_flags & 4)
            _, p = number(p)
            _, p = number(p)
            length_of_name, p = number(p)
            yield data[p : p + length_of_name].decode(), data[begin + length :][:packed], file_flags & 1
        at = begin + length + packed


def members_of_4():
    at = 7
    while at < len(data):
        kind, flags = data[at + 2], int.from_bytes(data[at + 3 : at + 5], "little")
        length = int.from_bytes(data[at + 5 : at + 7], "little")
        packed = int.from_bytes(data[at + 7 : at + 11], "little") if flags & 0x8000 else 0
        if kind == 0x74:
            size = int.from_bytes(data[at + 26 : at + 28], "little")
            stored = data[at + 32 : at + 32 + size].split(b"\0")[0].decode().replace("\\", "/")
            yield stored, data[at + length :][:packed], flags & 0xE0 == 0xE0
        at += length + packed


for stored, content, is_folder in members_of_5() if data[6] == 1 else members_of_4():
    path = os.path.join(folder, stored)
    os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
    if not is_folder:
        time.sleep(float(os.environ.get("RAR_PAUSE", "0")))
        with open(path, "wb") as file:
            file.write(content)
