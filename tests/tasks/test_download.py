"""Downloads from Python: a request in, a typed document out, without Typer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import DEFAULT, patch

import pytest
from web_server import WebServer

from dualformer_cli.documents.base import json_schema, to_json
from dualformer_cli.documents.download import Download, DownloadList, DownloadPlan
from dualformer_cli.errors import DownloadError
from dualformer_cli.tasks import download as task
from dualformer_cli.tasks.download import DownloadRequest, download, list_downloads, plan_download

LABELS = "something-something-v1-labels.csv"


@pytest.fixture(autouse=True)
def mirror(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue whose Diving48 has nothing but a vocabulary, on a local server."""
    web.files["/projects/resound/Diving48_vocab.json"] = b"[]"
    (tmp_path / "mirror.yaml").write_text(json.dumps({"mirrors": {"http://www.svcl.ucsd.edu": web.address}}))
    monkeypatch.setenv("DUALFORMER_CATALOGUE", str(tmp_path / "mirror.yaml"))
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_what_was_fetched_and_what_was_not_is_in_the_document(mirror: Path) -> None:
    seen: dict[str, int] = {}
    request = DownloadRequest(names=("diving48",), only=("annotations",), root=mirror / "data")
    document = download(request, lambda name, done, total: seen.update({name: done}))
    states = {one.name: (one.status, one.error is None) for one in document.datasets}
    assert states == {"vocabulary": ("done", True), "train": ("error", False), "test": ("error", False)}
    assert seen == {"diving48 Diving48_vocab.json": 2}
    assert document.present == {"diving48": ()}
    assert document.results == ()
    assert (mirror / "data/diving48/annotations/Diving48_vocab.json").read_bytes() == b"[]"


def test_a_plan_says_what_is_here_and_fetches_nothing(mirror: Path, web: WebServer) -> None:
    (mirror / "data/sthv1/annotations").mkdir(parents=True)
    (mirror / "data/sthv1/annotations" / LABELS).touch()
    document = plan_download(DownloadRequest(names=("SSv1", "k400-tiny"), splits=("val",), root=mirror / "data"))
    assert [(one.name, one.state, one.num_done, one.num_wanted) for one in document.files] == [
        ("annotations", "present", 1, 3),
        ("rawframes", "missing", 0, 1),
    ]
    assert [(one.name, one.state) for one in document.weights] == [("k400-tiny", "missing")]
    assert web.requests == []


def test_without_names_all_is_listed(mirror: Path) -> None:
    document = list_downloads(DownloadRequest(root=mirror))
    assert (len(document.datasets), len(document.weights)) == (15, 7)
    assert json.loads(json.dumps(to_json(document)))["datasets"][1]["flip_labels"] == []


def test_a_name_of_nothing_is_refused() -> None:
    with pytest.raises(DownloadError, match="nothing is known of 'ucf11'; did you mean 'ucf101'"):
        download(DownloadRequest(names=("ucf11",)))


def test_a_split_that_is_asked_for_is_the_one_that_is_planned_fetched_and_counted(mirror: Path) -> None:
    request = DownloadRequest(names=("ucf101",), splits=("val",), root=mirror, offline=True)
    names = ("plan", "state_of", "acquire", "count_present")
    with patch.multiple(task, **dict.fromkeys(names, DEFAULT)) as asked:
        for name in names:
            asked[name].return_value = []
        plan_download(request)
        download(request)
    assert [call.kwargs["splits"] for call in asked["plan"].call_args_list] == [("val",), ("val",)]
    assert asked["count_present"].call_args.args[1:] == ("ucf101", mirror, ("val",))


@pytest.mark.parametrize("document", [DownloadList, DownloadPlan, Download])
def test_every_document_has_a_schema(document: type) -> None:
    assert json_schema(document)["$ref"] == f"#/$defs/{document.__name__}"


def test_the_task_is_imported_without_typer_and_torch() -> None:
    code = "import sys, dualformer_cli.tasks.download; print(*{'typer', 'torch', 'av'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("option", "files", "weights"),
    [
        ({}, {}, {}),
        ({"offline": True}, {"offline": True}, {"offline": True}),
        ({"delete_archives": True}, {"delete_archives": True}, {}),
        ({"skip_certificate_check": True}, {"skip_certificate_check": True}, {}),
    ],
)
def test_every_choice_reaches_what_fetches(
    option: dict[str, bool], files: dict[str, bool], weights: dict[str, bool], mirror: Path
) -> None:
    names = ("ucf101", "k400-tiny")
    with (
        patch.object(task, "acquire", return_value=[]) as acquire,
        patch.object(task, "fetch_weights") as fetch_weights,
    ):
        fetch_weights.return_value = []
        download(DownloadRequest(names=names, splits=("val",), root=mirror, **option))
    off = {"offline": False, "delete_archives": False, "skip_certificate_check": False, "progress": None}
    assert acquire.call_args.kwargs == {**off, **files}
    assert [item.name for item in acquire.call_args.args[1]] == ["splits", "videos"]
    assert {item.folder for item in acquire.call_args.args[1]} == {mirror / "ucf101"}
    assert fetch_weights.call_args.args == (("k400-tiny",),)
    assert fetch_weights.call_args.kwargs == {"root": mirror, "offline": False, "progress": None, **weights}
