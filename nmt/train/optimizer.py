"""The optimizer: gradient clipping, AdamW, and an exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nmt.config.schema import TrainConfig
from nmt.model import Seq2Seq
from nmt.train.cuda_graphs import CapturedFunction, GraphPool

_MOMENTS = ("exp_avg", "exp_avg_sq")  # PyTorch's names of Adam's moments


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with clipping and averaged weights.

    An update with a non-finite gradient changes nothing. Values that differ between updates
    are in tensors, so that a captured CUDA graph reads them.

    Args:
        model: has the gradients.
        averaged: receives the moving average; `model` itself if there is none.
        config: learning rate, betas, weight decay, clipping, average.
        pool: captures the update as a CUDA graph; None to launch kernels one by one.
    """

    def __init__(
        self, model: Seq2Seq, averaged: Seq2Seq, config: TrainConfig, pool: GraphPool | None
    ) -> None:
        self.model, self.averaged, self.config, self.pool = model, averaged, config, pool
        assert config.ema != "auto"  # resolved before the run was created
        self._max_decay = config.ema
        device = next(model.parameters()).device
        self.adamw = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, betas=config.adam_betas,
            weight_decay=config.weight_decay, fused=True, capturable=pool is not None,
        )  # fmt: skip
        for parameter in model.parameters():  # a graph needs fixed addresses of the moments
            moments = {key: torch.zeros_like(parameter) for key in _MOMENTS}
            self.adamw.state[parameter] = {"step": torch.zeros((), device=device), **moments}
        self._rate, self._average_weight = (torch.zeros((), device=device) for _ in range(2))
        self._norm = torch.zeros((), device=device)
        self._apply: Callable[[], None] = (
            self._step if pool is None else CapturedFunction(pool, self._step)
        )

    def __call__(self, rate: float, number: int) -> Tensor:
        """Apply the gradient and set it to zero.

        Args:
            rate: the learning rate.
            number: of the update, from 1.

        Returns:
            The gradient norm before clipping, a scalar that the next update overwrites.
        """
        # The average covers few updates at first: early weights are far from the final ones.
        decay = min(self._max_decay, (1 + number) / (10 + number))
        self._average_weight.fill_(1 - decay)
        self._rate.fill_(rate)
        for group in self.adamw.param_groups:
            group["lr"] = rate if self.pool is None else self._rate
        self._apply()
        return self._norm

    @torch.no_grad()
    def _step(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        # A non-finite loss has a non-finite gradient, so checking the norm is enough.
        skip = (~norm.isfinite()).float()
        self.adamw.found_inf = skip  # type: ignore[attr-defined] # as AMP's GradScaler does
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=self.pool is None)  # a graph keeps the addresses
        self._norm.copy_(norm)
        if self.averaged is self.model:
            return
        weight = (1 - skip) * self._average_weight
        for averaged, parameter in zip(
            self.averaged.parameters(), self.model.parameters(), strict=True
        ):
            averaged.lerp_(parameter, weight)

    def weights_are_finite(self) -> bool:
        """Whether all weights and their averages are finite."""
        parameters = [*self.model.parameters(), *self.averaged.parameters()]
        return bool(torch.stack([p.isfinite().all() for p in parameters]).all())

    def state_dict(self) -> dict[str, Tensor]:
        """Return Adam's moments by parameter, and the weights if the saved ones are averages."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            for key in _MOMENTS:
                tensors[f"{key}.{name}"] = self.adamw.state[parameter][key]
            if self.averaged is not self.model:
                tensors[f"weight.{name}"] = parameter
        return tensors

    def load(self, tensors: dict[str, dict[str, Tensor]], update: int) -> None:
        """Load model and optimizer from the tensors of the checkpoint of `update`, in place."""
        self.averaged.load_state_dict(tensors["model"])
        trainer = tensors["trainer"]
        for name, parameter in self.model.named_parameters():
            if self.averaged is not self.model:
                parameter.data.copy_(trainer[f"weight.{name}"])
            state = self.adamw.state[parameter]
            state["step"].fill_(float(update))
            for key in _MOMENTS:
                state[key].copy_(trainer[f"{key}.{name}"])
