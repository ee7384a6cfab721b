"""MixUp: blend pairs of images and their targets, with reproducible draws."""

from __future__ import annotations

import torch
from composer.core import Event, State
from composer.core.precision import get_precision_context
from composer.loggers import Logger

from recipes.algorithms._base import (
    RecipeAlgorithm,
    dense_targets,
    in_layout_of,
    indices_to,
    seeded_generator,
    unwrapped,
)


class MixUp(RecipeAlgorithm):
    """Trains on (1 - m) * image + m * partner, with targets blended alike (Zhang et al. 2017, arXiv 1710.09412).

    As published by Mosaic: one m = min(l, 1 - l), l ~ Beta(alpha, alpha), per microbatch; partners are a permutation of
    the microbatch. Unlike in Composer, the draw depends only on seed, rank, batch and microbatch, so that SAM's second
    pass, a retry after running out of memory and a resumed run blend alike. Targets are paired at the loss, so that
    label smoothing, listed before or after, smooths both of a pair (Composer: only one if listed before).

    Args:
        alpha: parameter of the Beta distribution, at least 0. Published: .2 (medium), .25 (hot).
        interpolate_loss: blend two losses instead of the targets; the same for a loss that is linear in its targets.
    """

    BOUNDS = {"alpha": "at least 0"}
    RULES = {
        "not (interpolate_loss and 'label_smoothing' in config.algorithms)": (
            "interpolate_loss: true cannot be combined with label_smoothing, which may smooth only one of the two "
            "losses; type algorithms.mixup.interpolate_loss=false, or algorithms.label_smoothing=null"
        ),
    }
    NOT_WITH = {
        "cutmix": (
            "each would mix images that the other has already mixed, and the labels would match neither; the algorithm "
            "mix switches between them"
        )
    }
    rare = True  # a drawn coefficient may be too close to 1 to change anything
    BEFORE = {"label_smoothing": "which would otherwise smooth only one of the two mixed labels"}

    def __init__(self, alpha: float = 0.2, interpolate_loss: bool = False) -> None:
        self.alpha = alpha
        self.interpolate_loss = interpolate_loss
        self._microbatch = 0
        self._mixing = 0.0
        self._partners = torch.empty(0)
        self._partner_targets = torch.empty(0)

    def match(self, event: Event, state: State) -> bool:
        """Run at the start of a training pass, before its forward passes, and at its losses."""
        if event == Event.BEFORE_BACKWARD:
            return self.interpolate_loss
        return event in (Event.BEFORE_TRAIN_BATCH, Event.BEFORE_FORWARD, Event.BEFORE_LOSS)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Blend the images, targets or losses of the microbatch."""
        if event == Event.BEFORE_TRAIN_BATCH:
            self._microbatch = 0
        elif event == Event.BEFORE_FORWARD:
            self._blend_images(state)
        elif event == Event.BEFORE_LOSS:
            self._pair_targets(state)
        else:
            self._blend_losses(state)

    def _blend_images(self, state: State) -> None:
        draw = seeded_generator(state, "mixup", self._microbatch)
        self._microbatch += 1
        ratio = draw.beta(self.alpha, self.alpha) if self.alpha else 0.0
        self._mixing = float(min(ratio, 1 - ratio))
        images = state.batch_get_item(0)
        self._partners = indices_to(images.device, draw.permutation(images.shape[0]))
        partner_images = in_layout_of(images, images.index_select(0, self._partners))
        state.batch_set_item(0, torch.lerp(images, partner_images, self._mixing))

    def _pair_targets(self, state: State) -> None:
        targets = state.batch_get_item(1)
        if self.interpolate_loss:
            self._partner_targets = targets.index_select(0, self._partners)
            return
        assert isinstance(state.outputs, torch.Tensor)
        dense = dense_targets(state.outputs, targets)
        state.batch_set_item(1, torch.lerp(dense, dense.index_select(0, self._partners), self._mixing))

    def _blend_losses(self, state: State) -> None:
        loss_function = unwrapped(state.model).loss
        assert callable(loss_function) and isinstance(state.loss, torch.Tensor)
        with get_precision_context(state.precision, state.precision_config):
            partner_loss = loss_function(state.outputs, (state.batch_get_item(0), self._partner_targets))
        state.loss = torch.lerp(state.loss, partner_loss, self._mixing)
