"""Weights that a user names: a file, a folder as the Hub has it, or an address there, fetched into the Hub's cache."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dualformer_cli.config.schema import WEIGHTS_SUFFIXES
from dualformer_cli.data.fetch.fetch import await_answer
from dualformer_cli.errors import DownloadError, WeightsError

DEFAULT_FILE = "model.safetensors"
"""What an address without a file stands for; `export --format hub` writes it."""

ANSWER_SECONDS = 4.0
"""Time for the Hub to answer at all; its own client would try again for half a minute, and say so each time."""

_TIMM_MODELS: dict[tuple[int, ...], str] = {
    (64, 128, 256, 512): "twins_svt_small",
    (96, 192, 384, 768): "twins_svt_base",
    (128, 256, 512, 1024): "twins_svt_large",
}
"""timm's image models with the shapes of DualFormer tiny, small and base, by `model.embed_dims`."""

_ADDRESS = re.compile(r"hf://(?P<repo>[^/@:\s]+/[^/@:\s]+)(?:@(?P<revision>[^:\s]+))?(?::(?P<file>.+))?")


def is_hub_address(source: str) -> bool:
    """Return whether weights are named by an address of the Hub, right or wrong."""
    return source.startswith("hf://")


def local_weights(source: str, *, offline: bool) -> Path:
    """Return the file of weights that a user names: a path as it is, or an address of the Hub, fetched if needed.

    Args:
        source: a file, a folder as the Hub has it, or hf://OWNER/NAME[@REVISION][:FILE].
        offline: take what is in the Hub's cache, and never ask.

    Raises:
        WeightsError: if it is another folder.
        DownloadError: if the address is wrong, or the file is not in the cache and cannot be fetched.
    """
    if not is_hub_address(source):
        return _in_folder(Path(source)) if os.path.isdir(source) else Path(source)
    match = _ADDRESS.fullmatch(source)
    if match is None:
        raise DownloadError(f"weights {source!r}: an address is hf://OWNER/NAME[@REVISION][:FILE]")
    return _fetch(source, match["repo"], match["revision"], match["file"], offline=offline)


def _in_folder(folder: Path) -> Path:
    """Return the weights in a folder from the Hub or for it; of several, as a run has them, one must be named."""
    if (folder / DEFAULT_FILE).is_file():
        return folder / DEFAULT_FILE
    there = (path for place in (folder, folder / "checkpoints") for path in sorted(place.glob("*")))
    found = [str(path) for path in there if path.suffix in WEIGHTS_SUFFIXES and path.is_file()]
    advice = f"name one of its files: {', '.join(found[:4])}" if found else "no weights are in it"
    raise WeightsError(f"weights {str(folder)!r}: a folder without {DEFAULT_FILE}; {advice}")


def timm_model(embed_dims: Sequence[int]) -> str:
    """Return the name of timm's image model with the shapes of a model.

    Raises:
        WeightsError: if there is none.
    """
    if tuple(embed_dims) not in _TIMM_MODELS:
        raise WeightsError(
            f"timm has no Twins-SVT with embed_dims {list(embed_dims)}; sizes tiny, small and base have one; give "
            "--pretrained-2d FILE, or start without with --set train.pretrained_2d=null"
        )
    return _TIMM_MODELS[tuple(embed_dims)]


def no_timm(name: str, reason: str) -> DownloadError:
    """Return the error about an image model of timm's that cannot be fetched."""
    return DownloadError(
        f"timm's {name} cannot be fetched: {reason}; fetch its weights elsewhere and give --pretrained-2d FILE, or "
        "start without with --set train.pretrained_2d=null"
    )


NO_TIMM_OFFLINE = "it was not fetched before, and --offline or DUALFORMER_OFFLINE forbids the network"


def check_timm(embed_dims: Sequence[int], *, offline: bool) -> None:
    """Refuse a start from timm's image weights where it has none of the size, or may not fetch them, in no time.

    Raises:
        WeightsError: if there are none.
        DownloadError: if they are not in the Hub's cache, through which timm has them, and may not be fetched.
    """
    name = timm_model(embed_dims)
    if not offline:
        return
    import huggingface_hub

    files = (DEFAULT_FILE, "pytorch_model.bin")
    found = (huggingface_hub.try_to_load_from_cache(f"timm/{name}.in1k", file) for file in files)
    if not any(isinstance(path, str) for path in found):
        raise no_timm(name, NO_TIMM_OFFLINE)


def hub_problem() -> str | None:
    """Return why the Hub cannot be asked, within a few seconds; None where it answers anything."""
    from huggingface_hub import constants, get_session

    try:
        await_answer(lambda: get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS), ANSWER_SECONDS)
    except Exception as error:  # of the HTTP library, which is another one in each version of the Hub's
        return f"the Hub does not answer ({_first_line(error)})"
    return None


def _fetch(address: str, repo: str, revision: str | None, file: str | None, *, offline: bool) -> Path:
    import huggingface_hub  # here, because it takes longer to import than all of --help
    from huggingface_hub import constants, errors

    problem, name = f"weights {address!r} cannot be fetched", file or DEFAULT_FILE
    is_offline = offline or bool(constants.HF_HUB_OFFLINE)
    silence = None if is_offline else hub_problem()
    try:
        if not is_offline and silence is None:
            return Path(huggingface_hub.hf_hub_download(repo, name, revision=revision))
        # hf_hub_download(local_files_only=True) asks the Hub for what its headers need, once a day
        found = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    except errors.GatedRepoError:
        advice = "accept its terms on its page, then log in with `hf auth login`"
        raise DownloadError(f"{problem}: {repo!r} is gated; {advice}") from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(f"{problem}: there is no {repo!r}, or it is private; log in with `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise DownloadError(f"{problem}: {repo!r} has no revision {revision!r}; name a branch, tag or commit") from None
    except errors.LocalEntryNotFoundError:
        silence = "the Hub does not answer any more"
    except errors.EntryNotFoundError:
        raise DownloadError(f"{problem}: {_missing_file(repo, revision, name)}") from None
    except errors.HFValidationError as error:
        raise DownloadError(f"{problem}: {_first_line(error)}") from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise DownloadError(f"{problem}: {_first_line(error)}; try again later") from None
    if is_offline:
        reason = "it is not in the Hub's cache, and the network may not be used; fetch it once without --offline"
    else:
        reason = f"{silence} and the file is not in its cache; try again later"
    raise DownloadError(f"{problem}: {reason}")


def _missing_file(repo: str, revision: str | None, file: str) -> str:
    """Return the sentence about a file that a repository lacks, with those that it has."""
    import huggingface_hub

    found = huggingface_hub.HfApi().list_repo_files(repo, revision=revision)
    weights = [name for name in found if name.endswith(WEIGHTS_SUFFIXES)]
    if not weights:
        return f"{repo!r} has no {file!r}, and no other weights"
    return f"{repo!r} has no {file!r}; name one of its files behind a colon: {', '.join(weights[:5])}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
