"""The built-in dataset of camera motion is rendered: labelled clips that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dualformer_cli.config.option_defaults import RENDERED_BUSY, RENDERED_DIFFICULTY, RENDERED_FRAMES
from dualformer_cli.data.camera_motion.files import Settings, estimate, find_sources, render_all
from dualformer_cli.data.prepare.work import Watch, unwatched
from dualformer_cli.documents.render import RenderEstimate, RenderSummary
from dualformer_cli.tasks.prepare import join_ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """Which clips to render, and where."""

    root: Path
    count: int
    """Clips of all splits."""
    pictures: tuple[str, ...] = ()
    """Folders of pictures, or "scikit-image", to move over besides drawn pictures."""
    num_frames: int = RENDERED_FRAMES
    """Of a clip."""
    difficulty: float = RENDERED_DIFFICULTY
    """From large and clean (0) to hardly seen (1)."""
    busy: float = RENDERED_BUSY
    """Share of the clips in which much moves before the camera."""
    seed: int = 0
    num_workers: int = 1
    """Worker processes."""
    overwrite: bool = False
    """Whether clips that are there are rendered anew."""

    def settings(self) -> Settings:
        """Return what decides the clips.

        Raises:
            DualFormerError: a value out of range, or pictures that cannot be read.
        """
        return Settings(
            seed=self.seed,
            num_frames=self.num_frames,
            difficulty=self.difficulty,
            busy=self.busy,
            pictures=find_sources(self.pictures),
        )


def estimate_rendering(request: RenderRequest) -> RenderEstimate | None:
    """Return what `render` would need, and write nothing; None on ranks other than 0. It raises as that."""
    with join_ranks() as ranks:
        if ranks is not None and not ranks.is_main:
            return None
        return estimate(
            request.root,
            request.settings(),
            request.count,
            num_workers=request.num_workers,
            overwrite=request.overwrite,
        )


def render(request: RenderRequest, *, watch: Watch = unwatched) -> RenderSummary | None:
    """Render the clips that are not there, and return what is there then; None on ranks other than 0, which only wait.

    Raises:
        DualFormerError: a value out of range, or a folder or file that cannot be used.
    """
    with join_ranks() as ranks:
        if ranks is not None and not ranks.is_main:
            return None
        settings = request.settings()
        with watch("render", request.count) as advance:
            return render_all(
                request.root,
                settings,
                request.count,
                num_workers=request.num_workers,
                overwrite=request.overwrite,
                on_clip=advance,
            )
