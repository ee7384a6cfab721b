"""EMA: an exponential moving average of the weights, for evaluation, checkpoints and the final model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from composer.core import Event, State, Time, TimeUnit
from composer.loggers import Logger
from torch import Tensor, nn

from common.durations import parse
from common.errors import TrainingError
from recipes.algorithms._base import Length, RecipeAlgorithm, Start, unwrapped
from recipes.frozen_batchnorm import frozen_buffers

_UPDATE_EVENTS = {TimeUnit.BATCH: Event.BATCH_END, TimeUnit.EPOCH: Event.EPOCH_END}
_SWAP_IN = (Event.EVAL_START, Event.PREDICT_START)
_MOST_KEPT = 0.01  # share of the final average that its first weights may make up
_SWAP_OUT = (Event.EVAL_END, Event.PREDICT_END)


class EMA(RecipeAlgorithm):
    """Averages all parameters and buffers: average = smoothing * average + (1 - smoothing) * current.

    Computes the same numbers as Composer's EMA, with fused operations. The model holds the average during evaluation
    and prediction, inside `evaluation_weights`, and after fit(); another fit() continues from the training weights.
    Names are saved without the prefixes of wrappers, so that a checkpoint fits any number of ranks; Composer's
    checkpoints can be loaded too. Tensors are swapped in place, because DDP, the optimizer and compiled graphs keep
    references to them.

    Args:
        half_life: time after which the weight of an old value is halved, such as '100ba' (published) or '1ep'.
        smoothing: per update, more than 0 and less than 1; an alternative to half_life, which must then be None.
        decay: a third way, torchvision's `--model-ema-decay` (.99998 in torchvision_v2), whose smoothing is 1 - (1 -
            decay) * images per step * batches per update / epochs. Batches are then counted from 0 in every epoch, and
            those that are multiples of update_interval update.
        ema_start: when averaging starts: '0.25dur', '500ba' or '3ep'.
        update_interval: time between updates, such as '20ba' (published); default: 1 in half_life's unit, or '1ba'.
    """

    BOUNDS = {
        "half_life": "at least 1, in ba or ep",
        "smoothing": "a fraction, more than 0 and less than 1, or null",
        "decay": "a fraction, more than 0 and less than 1, or null",
        "update_interval": "at least 1, in ba or ep",
        "ema_start": "at least 0, in dur, ba or ep",
    }
    RULES = {
        "half_life or smoothing or decay": "half_life, smoothing and decay are all null; give one of them",
        "not (half_life and smoothing)": (
            "half_life and smoothing are two ways to set the same thing; set one of them to null"
        ),
        "not (decay and (half_life or smoothing))": "decay replaces half_life and smoothing; set both to null",
        "not (decay and update_interval) or update_interval.unit == 'ba'": (
            "update_interval: {update_interval} given, but decay counts batches; give it in ba, such as 32ba"
        ),
        "not (half_life and update_interval) or half_life.unit == update_interval.unit": (
            "half_life {half_life} and update_interval {update_interval} must be in the same unit"
        ),
    }
    BEFORE = {"decentralized": "which would otherwise average weights over the ranks that are not evaluated"}
    PROTOCOL = "EMA"
    NO_LR_FIND = "averages weights, which does not affect the training loss"

    def __init__(
        self,
        half_life: str | None = "1000ba",
        smoothing: float | None = None,
        ema_start: str = "0.0dur",
        update_interval: str | None = None,
        decay: float | None = None,
    ) -> None:
        self.half_life = None if half_life is None else Time.from_input(half_life)
        self.smoothing = smoothing
        self.decay = decay
        shortest = Time(1, TimeUnit.BATCH if self.half_life is None else self.half_life.unit)
        self.update_interval = shortest if update_interval is None else Time.from_input(update_interval)
        self.ema_start = Time.from_input(ema_start)
        self.ema_weights_active = False
        self.ema_started = False
        self._active_before = False
        self._model: nn.Module | None = None
        # The weights not in the model: the average during training, the training weights while the average is active.
        self._parameters: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}

    @property
    def smoothing_per_update(self) -> float:
        """Weight of the old average in an update; 2^(-20/100) = .87055 as published."""
        if self.half_life is None:
            assert self.smoothing is not None
            return self.smoothing
        return 2 ** (-(self.update_interval.value / self.half_life.value))

    def smoothing_in(self, epochs: float, batch_size: float) -> float:
        """Return the weight of the old average in an update of a run of `epochs` with `batch_size` images per step."""
        if self.decay is None:
            return self.smoothing_per_update
        return 1 - min(1.0, (1 - self.decay) * batch_size * self.update_interval.value / epochs)

    @property
    def named_buffers(self) -> dict[str, Tensor]:
        """Stored buffers by name: the averaged ones while the model holds the training weights, and vice versa."""
        return self._buffers

    def first_effect(self) -> list[Start]:
        """Return the start of averaging and the first update."""
        event = _UPDATE_EVENTS[self.update_interval.unit]
        moments = {"ema_start": self.ema_start, "update_interval": self.update_interval}
        return [Start(name, moment.to_timestring(), event) for name, moment in moments.items()]

    def shortfall(self, length: Length) -> tuple[str, dict[str, Any] | None] | None:
        """Warn of an average that is still made of the weights at its start, which are untrained in most runs."""
        start = parse(self.ema_start.to_timestring()).batches(length.batches_per_epoch, 1, length.batches)
        by_epoch = self.update_interval.unit == TimeUnit.EPOCH
        updates = (length.batches - start) / (length.batches_per_epoch if by_epoch else 1) // self.update_interval.value
        kept = self.smoothing_in(length.batches / length.batches_per_epoch, length.batch_size) ** updates
        if kept < _MOST_KEPT:
            return None
        half_life = max(1, int(length.batches - start) // 20)
        shorter = {"half_life": f"{half_life}ba", "update_interval": "1ba"}
        for other in ("smoothing", "decay"):
            if getattr(self, other) is not None:
                shorter = {other: "null", **shorter}
        helps = 2 ** (-(length.batches - start) / half_life) < _MOST_KEPT
        return f"{kept:.0%} of the final average are the weights with which it starts", shorter if helps else None

    def match(self, event: Event, state: State) -> bool:
        """Run on the events where weights are updated or swapped."""
        if event == Event.INIT:
            return True
        if event == _UPDATE_EVENTS[self.update_interval.unit]:
            return self.ema_started or self._starts_now(state)
        return self.ema_started and event in (Event.FIT_START, Event.BATCH_START, Event.FIT_END, *_SWAP_IN, *_SWAP_OUT)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Update the average, or swap it with the model's weights."""
        if event == Event.INIT:
            self._model = state.model
        elif event in _UPDATE_EVENTS.values():
            self._update(state)
        elif event == Event.FIT_START:
            self._follow(state)
        elif event == Event.BATCH_START:
            self._activate(state, False)
        elif event == Event.FIT_END:
            self._activate(state, True)
        elif event in _SWAP_IN:
            self._follow(state)
            self._active_before = self.ema_weights_active
            self._activate(state, True)
        else:
            self._activate(state, self._active_before)

    @contextmanager
    def evaluation_weights(self, state: State) -> Iterator[None]:
        """Context in which the model holds the averaged weights, and state_dict() the training weights.

        Write (or copy) a state to save inside the context, because state_dict() returns the live tensors.
        """
        before = self.ema_weights_active
        self._activate(state, True)
        try:
            yield
        finally:
            self._activate(state, before)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the format of Composer's EMA."""
        return {
            **super().state_dict(),
            "ema_model": {"named_parameters_dict": self._parameters, "named_buffers_dict": self._buffers},
            "ema_weights_active": self.ema_weights_active,
            "ema_started": self.ema_started,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load an average saved by this class or Composer's; a TrainingError if it does not fit the model."""
        self.ema_started = bool(state["ema_started"])
        self.ema_weights_active = self.ema_started and bool(state["ema_weights_active"])
        if not self.ema_started:
            return  # Composer's EMA stores the initial weights, which will be replaced
        assert self._model is not None, "load_state_dict() needs Event.INIT to have run"
        saved, (parameters, buffers) = state["ema_model"], _weights(self._model)
        self._parameters = _fitted(saved.get("named_parameters_dict", {}), parameters)
        self._buffers = _fitted(saved.get("named_buffers_dict", {}), buffers)

    def _starts_now(self, state: State) -> bool:
        unit = self.ema_start.unit
        now = state.get_elapsed_duration() if unit == TimeUnit.DURATION else state.timestamp.get(unit)
        return now is not None and now >= self.ema_start

    @torch.no_grad()
    def _update(self, state: State) -> None:
        live = _weights(state.model)
        if not self.ema_started:
            self._parameters, self._buffers = ({k: v.detach().clone() for k, v in part.items()} for part in live)
            self.ema_started = self.acted = True
        now = state.timestamp
        done = now.get(self.update_interval.unit).value if self.decay is None else now.batch_in_epoch.value - 1
        if done % self.update_interval.value:
            return
        current, average = self._pairs(state)
        keep = self._smoothing(state)
        floats = [i for i, tensor in enumerate(average) if tensor.is_floating_point()]
        torch._foreach_lerp_([average[i] for i in floats], [current[i] for i in floats], 1 - keep)
        # Integer counters (num_batches_tracked) are averaged and truncated, as published.
        counters = [i for i, tensor in enumerate(average) if not tensor.is_floating_point()]
        if counters:
            blend = torch._foreach_mul([average[i] for i in counters], keep)
            torch._foreach_add_(blend, torch._foreach_mul([current[i] for i in counters], 1 - keep))
            torch._foreach_copy_([average[i] for i in counters], blend)

    def _smoothing(self, state: State) -> float:
        if self.decay is None:
            return self.smoothing_per_update
        assert state.max_duration is not None and state.dataloader_len is not None
        done, batches = state.timestamp, state.dataloader_len.value
        batch_size = done.sample_in_epoch.value // done.batch_in_epoch.value
        length = parse(state.max_duration.to_timestring()).batches(batches, batch_size)
        return self.smoothing_in(length / batches, batch_size)

    @torch.no_grad()
    def _activate(self, state: State, average: bool) -> None:
        """Swap the stored weights with the model's, unless the model already holds the desired ones."""
        if not self.ema_started or self.ema_weights_active == average:
            return
        live, stored = self._pairs(state)
        scratch = [tensor.detach().clone() for tensor in live]
        torch._foreach_copy_(live, stored)
        torch._foreach_copy_(stored, scratch)
        self.ema_weights_active = average

    def _pairs(self, state: State) -> tuple[list[Tensor], list[Tensor]]:
        """Return the model's tensors and the stored ones in the same order."""
        parameters, buffers = _weights(state.model)
        if parameters.keys() != self._parameters.keys() or buffers.keys() != self._buffers.keys():
            raise TrainingError(_mismatch({*parameters, *buffers}, {*self._parameters, *self._buffers}))
        live = [*parameters.values(), *buffers.values()]
        return live, [*(self._parameters[name] for name in parameters), *(self._buffers[name] for name in buffers)]

    def _follow(self, state: State) -> None:
        """Convert the stored tensors to the model's current device and memory format."""
        for stored, live in zip((self._parameters, self._buffers), _weights(state.model), strict=True):
            for name, tensor in live.items():
                if name in stored and (stored[name].device, stored[name].stride()) != (tensor.device, tensor.stride()):
                    stored[name] = torch.empty_like(tensor, requires_grad=False).copy_(stored[name])


def _weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a model's trained parameters and its buffers, by their names in the unwrapped model.

    Frozen ones are left out: their average is themselves, but rounding would change it.
    """
    model = unwrapped(model)
    frozen = frozen_buffers(model)
    parameters = {_plain(name): p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return parameters, {_plain(name): buffer for name, buffer in model.named_buffers() if id(buffer) not in frozen}


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "")


def _fitted(saved: dict[str, Tensor], live: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy saved tensors to the model's names, device and memory format."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in saved.items():
        name = _plain(key)
        while name not in live and name.startswith("module."):  # DDP's prefix in Composer's checkpoints
            name = name.removeprefix("module.")
        renamed[name] = tensor
    if renamed.keys() != live.keys():
        raise TrainingError(_mismatch(set(live), set(renamed)))
    for name, tensor in live.items():
        if renamed[name].shape != tensor.shape:
            raise TrainingError(
                f"The checkpoint's moving average does not fit the model: {name} has shape "
                f"{tuple(renamed[name].shape)} in the checkpoint and {tuple(tensor.shape)} in the model."
            )
    return {name: torch.empty_like(tensor).copy_(renamed[name].detach()) for name, tensor in live.items()}


def _mismatch(live: set[str], stored: set[str]) -> str:
    """Return the message for an average of a different model."""
    missing, extra = sorted(live - stored), sorted(stored - live)
    return (
        f"The moving average does not fit the model: {len(missing)} of its tensors are missing"
        f"{' (' + missing[0] + ', ...)' if missing else ''}, {len(extra)} are not in the model"
        f"{' (' + extra[0] + ', ...)' if extra else ''}. Resume with the checkpoint's model and algorithms."
    )
