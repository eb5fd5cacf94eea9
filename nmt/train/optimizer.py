"""What an update does with its gradient: clip it, move the weights, and their average."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nmt.config.schema import TrainConfig
from nmt.model import Seq2Seq
from nmt.train.cuda_graphs import Recorder, Recording

_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, as PyTorch calls them


class Step:
    """Adam (Loshchilov & Hutter 2019) with a clipped gradient, and the average of the weights.

    A gradient that is not finite changes nothing. Where the step is recorded, what changes
    from one to the next lies in tensors.

    Args:
        model: whose gradient was computed.
        averaged: holds the average of the weights; `model` itself if there is none.
        config: rate, decay, clipping.
        recorder: records the step, and nothing else; None: it is launched each time.
    """

    def __init__(
        self, model: Seq2Seq, averaged: Seq2Seq, config: TrainConfig, recorder: Recorder | None
    ) -> None:
        self.model, self.averaged, self.config, self.recorder = model, averaged, config, recorder
        assert config.ema != "auto"  # resolved before
        self._ema = config.ema
        device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, betas=config.adam_betas,
            weight_decay=config.weight_decay, fused=True, capturable=recorder is not None,
        )  # fmt: skip
        for parameter in model.parameters():  # a recording must know where the moments are
            moments = {key: torch.zeros_like(parameter) for key in _MOMENTS}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=device), **moments}
        self._rate, self._nearer = (torch.zeros((), device=device) for _ in range(2))
        self._norm = torch.zeros((), device=device)
        self._apply: Callable[[], None] = (
            self._step if recorder is None else Recording(recorder, self._step)
        )

    def __call__(self, rate: float, number: int) -> Tensor:
        """Apply the gradient and set it to zero.

        Args:
            rate: the learning rate.
            number: of the update, from 1.

        Returns:
            The norm of the gradient before clipping, a scalar; the next step may overwrite it.
        """
        # Early weights are far from the end: the average begins short and grows long.
        decay = min(self._ema, (1 + number) / (10 + number))
        self._nearer.fill_(1 - decay)
        self._rate.fill_(rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate if self.recorder is None else self._rate
        self._apply()
        return self._norm

    @torch.no_grad()
    def _step(self) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        # If the norm is finite, so is the loss, or its gradient would not be.
        spoiled = (~norm.isfinite()).float()
        self.optimizer.found_inf = spoiled  # type: ignore[attr-defined] # what AMP's scaler sets
        self.optimizer.step()
        # A recorded gradient stays where it is.
        self.optimizer.zero_grad(set_to_none=self.recorder is None)
        self._norm.copy_(norm)
        if self.averaged is self.model:
            return
        weight = (1 - spoiled) * self._nearer
        for averaged, parameter in zip(
            self.averaged.parameters(), self.model.parameters(), strict=True
        ):
            averaged.lerp_(parameter, weight)

    def tensors(self) -> dict[str, Tensor]:
        """What training needs besides the weights to translate with, named by parameter.

        Adam's two moments; and the weights themselves where those saved are their average.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            for key in _MOMENTS:
                found[f"{key}.{name}"] = self.optimizer.state[parameter][key]
            if self.averaged is not self.model:
                found[f"weight.{name}"] = parameter
        return found

    def put_back(self, tensors: dict[str, dict[str, Tensor]], update: int) -> None:
        """Give network and optimizer what a checkpoint of that update holds."""
        self.averaged.load_state_dict(tensors["model"])
        trainer = tensors["trainer"]
        for name, parameter in self.model.named_parameters():
            if self.averaged is not self.model:
                parameter.data.copy_(trainer[f"weight.{name}"])
            # In place, since a recorded step knows the place.
            state = self.optimizer.state[parameter]
            state["step"].fill_(float(update))
            for key in _MOMENTS:
                state[key].copy_(trainer[f"{key}.{name}"])
