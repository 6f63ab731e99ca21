"""What an update does: which parameters at which rate, and the learning-rate curve.

Groups and curve are those of the published runs as they resolved; `tests/golden/golden_recipe.json` holds their values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim.optimizer import StateDict

from dualformer_cli.engine.parallel.devices import multiplies_bf16
from dualformer_cli.model.blocks import PositionConv
from dualformer_cli.model.dualformer import DualFormer, Stage
from dualformer_cli.model.weights import FRESH_IN_TRAINING

ParameterGroup = dict[str, Any]
"""{"params", "names", "lr", "lr_scale", "weight_decay"}; lr is the run's learning rate times lr_scale."""

OptimizerName = Literal["adamw", "muon"]

_BETAS = (0.9, 0.999)


def parameter_groups(
    model: DualFormer,
    *,
    lr: float,
    backbone_lr_scale: float,
    weight_decay: float,
    decay_norms: bool,
    layer_decay: float = 1.0,
    frozen_stages: int = 0,
) -> list[ParameterGroup]:
    """Sort all parameters that train into groups of one learning rate and one weight decay.

    The backbone learns at `backbone_lr_scale`, the classifier and the heads for training at the full rate. Position
    convolutions have the full rate too and never decay: so the published runs resolved their settings.

    Args:
        model: frozen stages lose their gradients here and are in no group.
        lr: the run's learning rate, for the start; `set_learning_rate` follows the curve.
        backbone_lr_scale: the backbone's learning rate over the classifier's.
        weight_decay: AdamW's decoupled weight decay.
        decay_norms: whether norms and biases decay like other weights, as they did in the published runs.
        layer_decay: learning rate of a block over that of the next. Each patch embedding and position convolution
            counts with the block it belongs to, except the first embedding, which is one layer below; the final norm
            and the heads are the top.
        frozen_stages: the first stages, which keep their weights.

    Returns:
        Groups in the order in which the model first names one of their parameters.

    Raises:
        ValueError: if the model has fewer stages than are to be frozen.
    """
    freeze_stages(model, frozen_stages)
    unscaled = {id(parameter) for parameter in _position_parameters(model)}
    layers, top = _layers(model)
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_position, is_head = id(parameter) in unscaled, name.startswith(FRESH_IN_TRAINING)
        lr_scale = 1.0 if is_position or is_head else backbone_lr_scale
        lr_scale *= layer_decay ** (top - layers.get(id(parameter), top))
        decays = not is_position and (decay_norms or parameter.dim() > 1)
        key = (lr_scale, weight_decay if decays else 0.0)
        group = groups.setdefault(
            key, {"params": [], "names": [], "lr": lr * lr_scale, "lr_scale": lr_scale, "weight_decay": key[1]}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _position_parameters(model: DualFormer) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, PositionConv):
            yield from module.parameters()


def _layers(model: DualFormer) -> tuple[dict[int, int], int]:
    """Return the depth of the parameters of all stages, by their id, and that of everything above the stages."""
    layers: dict[int, int] = {}
    depth = 0
    for stage in _stages(model):
        first = depth + 1
        for block in stage.blocks:
            depth += 1
            layers.update((id(parameter), depth) for parameter in block.parameters())
        layers.update((id(parameter), first) for parameter in stage.position.parameters())
        embed_depth = 0 if first == 1 else first
        layers.update((id(parameter), embed_depth) for parameter in stage.patch_embed.parameters())
    return layers, depth + 1


def _stages(model: DualFormer) -> Sequence[Stage]:
    return [cast(Stage, stage) for stage in model.stages]


def freeze_stages(model: DualFormer, frozen_stages: int) -> None:
    """Switch off the gradients of the first stages; `train_mode` keeps their BatchNorm and drop path still.

    Raises:
        ValueError: if the model has fewer stages.
    """
    if not 0 <= frozen_stages <= len(model.stages):
        raise ValueError(f"frozen_stages must be 0 to {len(model.stages)}, the model's stages, got {frozen_stages}")
    for stage in _stages(model)[:frozen_stages]:
        stage.requires_grad_(False)


def train_mode(model: DualFormer, *, frozen_stages: int = 0) -> None:
    """Set the model to training, except for the first `frozen_stages`, which run as in evaluation."""
    model.train()
    for stage in _stages(model)[:frozen_stages]:
        stage.eval()


def lr_at(
    iteration: int,
    *,
    base_lr: float,
    epochs: int,
    iterations_per_epoch: int,
    warmup_epochs: float,
    warmup_ratio: float = 0.1,
) -> float:
    """The published learning-rate curve: one cosine value per epoch, with a linear warm-up per iteration.

    An epoch e has base_lr / 2 * (1 + cos(pi * e / epochs)). Iteration i of the n = warmup_epochs *
    iterations_per_epoch of the warm-up multiplies it by warmup_ratio + (1 - warmup_ratio) * i / n.

    The published runs counted micro-iterations: forward passes, several of which accumulate into an update. A trainer
    of `accumulation` passes per step asks for `iteration=step * accumulation`, the first of the step, with
    `iterations_per_epoch=steps_per_epoch * accumulation`. Then only step / steps_per_epoch matters, and the curve is
    the same however the global batch is cut (counting steps alone, with accumulation 1, gives the same value).

    Args:
        iteration: counted from 0 over the whole run.
        base_lr: the peak, of a parameter group or of the run.
        epochs: of the whole run; the curve reaches 0 where it ends.
        iterations_per_epoch: in the unit of `iteration`.
        warmup_epochs: need not be whole.
        warmup_ratio: the factor at the first iteration.
    """
    epoch = iteration // iterations_per_epoch
    lr = base_lr / 2 * (1 + math.cos(math.pi * epoch / epochs))
    warmup_iterations = warmup_epochs * iterations_per_epoch
    if iteration < warmup_iterations:
        lr *= 1 - (1 - iteration / warmup_iterations) * (1 - warmup_ratio)
    return lr


def build_optimizer(
    groups: Sequence[ParameterGroup], name: OptimizerName, *, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with betas (0.9, 0.999) over `parameter_groups`, or Muon for the blocks' matrices and AdamW for the rest.

    AdamW is the fused one: on CUDA a kernel for its many tensors, on a CPU one pass over the memory in place of seven.
    """
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=_BETAS, fused=True)
    return MuonWithAdamW(groups, device=device)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the matrices of the blocks' linear layers, AdamW for everything else.

    Muon makes the singular values of a matrix's update equal. Its updates are scaled to the size of AdamW's
    (Liu et al. 2025, arXiv 2502.16982), so that one learning rate and weight decay serve both.

    Args:
        groups: as `parameter_groups` gives them.
        device: of the parameters.
    """

    def __init__(self, groups: Sequence[ParameterGroup], *, device: torch.device) -> None:
        matrices, others = (
            [part for group in groups if (part := _part(group, is_matrix=is_matrix))["params"]]
            for is_matrix in (True, False)
        )
        super().__init__([*matrices, *others], {})
        is_cpu = device.type == "cpu"
        dtype = torch.float32 if is_cpu and not multiplies_bf16() else torch.bfloat16
        self._parts: list[tuple[torch.optim.Optimizer, bool]] = [
            (torch.optim.AdamW(others, betas=_BETAS, fused=True), False)
        ]
        if matrices:  # frozen stages have none
            self._parts.insert(0, (_Muon(matrices, dtype=dtype, together=not is_cpu), True))
        self.param_groups = [group for part, _ in self._parts for group in part.param_groups]  # now with all settings
        self._share()

    def _share(self) -> None:
        """Let both work on this object's groups and state, which are what is saved."""
        for part, is_matrix in self._parts:
            part.param_groups = [group for group in self.param_groups if group["is_matrix"] is is_matrix]
            part.state = self.state

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: if it is of other parameters.
        """
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters by their gradients."""
        for part, _ in self._parts:
            part.step()


class _Muon(torch.optim.Muon):
    """Muon that works on several matrices of one shape at a time, or in another precision than the library's.

    Args:
        groups: of parameters.
        dtype: in which singular values are made even. The library's bfloat16 takes a processor without instructions for
            it 20 times as long as the forward and backward pass.
        together: take all matrices of one shape in one batch. A GPU would spend its time on 45 launches for each; a
            processor gains nothing.
    """

    def __init__(self, groups: Sequence[ParameterGroup], *, dtype: torch.dtype, together: bool) -> None:
        super().__init__(groups, adjust_lr_fn="match_rms_adamw")
        self._dtype, self._together = dtype, together

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the matrices by their gradients, as the library does but for the precision."""
        for group in self.param_groups:
            for matrices in self._batches(group["params"]):
                grads = [cast(Tensor, matrix.grad) for matrix in matrices]
                momenta = [self._momentum(matrix) for matrix in matrices]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                updates = torch._foreach_lerp(grads, momenta, group["momentum"]) if group["nesterov"] else momenta
                update = updates[0] if len(updates) == 1 else torch.stack(tuple(updates))
                even = _even_singular_values(
                    update, group["ns_coefficients"], group["ns_steps"], group["eps"], dtype=self._dtype
                ).to(update.dtype)
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                alpha = -group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
                torch._foreach_add_(
                    matrices, [even] if even.dim() == 2 else list(even.contiguous().unbind()), alpha=alpha
                )

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum: Tensor = state["momentum_buffer"]
        return momentum

    def _batches(self, parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """The parameters that have gradients, those that are updated at a time."""
        matrices = [parameter for parameter in parameters if parameter.grad is not None]
        if not self._together:
            yield from ([matrix] for matrix in matrices)
            return
        of_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            of_shape.setdefault(matrix.shape, []).append(matrix)
        yield from of_shape.values()


def _even_singular_values(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float, *, dtype: torch.dtype
) -> Tensor:
    """Bring all singular values of a matrix near 1, or of each in a batch, by iterations of Newton and Schulz."""
    a, b, c = coefficients
    multiply_add = torch.addmm if matrices.dim() == 2 else torch.baddbmm
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if is_tall else matrices
    wide = wide.bfloat16().to(dtype)  # as the library does; it lifts the smallest singular values
    wide = wide / torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = multiply_add(wide, multiply_add(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if is_tall else wide


def _part(group: ParameterGroup, *, is_matrix: bool) -> ParameterGroup:
    """The matrices of the stages in a group, or all that is not one."""
    named = [
        (name, parameter)
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if (name.startswith("stages.") and parameter.dim() == 2) is is_matrix
    ]
    return {
        **group,
        "names": [name for name, _ in named],
        "params": [parameter for _, parameter in named],
        "is_matrix": is_matrix,
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the run's learning rate `lr` times its own lr_scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
