"""StochasticDepth: drop residual branches at random in Bottleneck and BasicBlock, without graph breaks."""

from __future__ import annotations

import torch
from composer.core import Event, State, Time, TimeUnit
from composer.loggers import Logger
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from recipes.algorithms._base import Surgery


class StochasticBlock(nn.Module):
    """Shared forward pass of StochasticBottleneck and StochasticBasicBlock.

    Attributes:
        drop_per_sample: whether to draw per image instead of per microbatch.
        keep_probability: of the residual branch; a Python float, so that the compiled graph has no branch and no sync.
        scaled_in_training: divide what is kept by its probability in training, instead of multiplying in evaluation.
    """

    drop_per_sample: bool
    scaled_in_training: bool = False
    keep_probability: float
    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    relu: nn.Module
    downsample: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        branch = self._branch(x)
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(branch * self._factor(branch) + identity)

    def _factor(self, branch: Tensor) -> Tensor | float:
        """Return 0 or 1 per sample or microbatch in training, and the keep probability in evaluation, or as scaled."""
        if not self.training:
            return 1.0 if self.scaled_in_training else self.keep_probability
        if self.drop_per_sample:
            # In float32, because bfloat16 has only multiples of 1/256 here, which turns a rate of .006 into .008.
            uniform = torch.rand((branch.shape[0], 1, 1, 1), dtype=torch.float32, device=branch.device)
            kept = torch.floor(self.keep_probability + uniform)
            return (kept / self.keep_probability if self.scaled_in_training else kept).to(branch.dtype)
        keep = torch.full((), self.keep_probability, dtype=torch.float32, device=branch.device)
        return torch.bernoulli(keep).to(branch.dtype)

    def _branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class StochasticBottleneck(StochasticBlock, Bottleneck):
    """torchvision's Bottleneck with stochastic depth."""

    conv3: nn.Module
    bn3: nn.Module

    def _branch(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out))


class StochasticBasicBlock(StochasticBlock, BasicBlock):
    """torchvision's BasicBlock with stochastic depth."""

    def _branch(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(out))


STOCHASTIC: dict[type, type[StochasticBlock]] = {Bottleneck: StochasticBottleneck, BasicBlock: StochasticBasicBlock}
"""Each of torchvision's blocks, and what replaces it."""


class StochasticDepth(Surgery):
    """Drops residual branches in training, and scales them by their keep probability in evaluation.

    Huang et al. 2016 (https://arxiv.org/abs/1603.09382). Only the class of the blocks changes, not their parameters and
    names, so that copies, checkpoints, blurpool and torch.compile (0 graph breaks; stock: 11 on a ResNet-50) work.
    Stock has no effect on a ResNet-18 or -34.

    In the 'block' method a dropped branch is multiplied by 0; stock skips it. So every parameter has a gradient (DDP
    need not find unused ones), but no time is saved, and the branch's BatchNorm statistics and momentum are updated in
    every step, as in the paper's code.

    Args:
        target_layer_name: 'ResNetBottleneck' or 'ResNetBasicBlock'; both mean the residual blocks of a torchvision
            ResNet, of either type.
        stochastic_method: 'block', one draw per microbatch; 'sample', one draw per image. Published for hot: sample.
        drop_rate: probability of dropping the last branch, 0 to 1. Published for hot: .1.
        drop_distribution: 'linear', rates from drop_rate / blocks to drop_rate; 'uniform', drop_rate for all blocks.
        drop_warmup: the time over which rates grow from 0, such as '0.1dur'; a float is a fraction of the run. As in
            stock only with 'block'.
    """

    BOUNDS = {
        "target_layer_name": ("ResNetBottleneck", "ResNetBasicBlock"),
        "stochastic_method": ("block", "sample"),
        "drop_rate": "a fraction, from 0 to 1",
        "drop_distribution": ("linear", "uniform"),
        "drop_warmup": "a fraction of the run, from 0 to 1, in dur",
    }
    NOT_WITH = {"drop_path": "both drop the same branches"}
    RULES = {
        "config.model.is_resnet": (
            "is for the blocks of torchvision's ResNets, which {config.model.name} has not; type "
            "algorithms.stochastic_depth=null"
        ),
        "stochastic_method != 'sample' or not drop_warmup.value": (
            "drop_warmup: must be 0 with stochastic_method=sample"
        ),
        "not (config.compile and drop_warmup.value)": (
            "drop_warmup: with compile=true each new drop rate would recompile the model; set it to 0, or compile=false"
        ),
    }

    def __init__(
        self,
        target_layer_name: str = "ResNetBottleneck",
        stochastic_method: str = "block",
        drop_rate: float = 0.2,
        drop_distribution: str = "linear",
        drop_warmup: float | str = 0.0,
    ) -> None:
        self.target_layer_name = target_layer_name
        self.stochastic_method = stochastic_method
        self.drop_rate = drop_rate
        self.drop_distribution = drop_distribution
        self.drop_warmup = Time.from_input(drop_warmup, TimeUnit.DURATION)

    def match(self, event: Event, state: State) -> bool:
        """Run on Event.INIT and, with a warm-up, at the start of every batch."""
        return event == Event.INIT or (event == Event.BATCH_START and self.drop_warmup.value > 0)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Change the blocks' class, or update the rates."""
        if event == Event.BATCH_START:
            elapsed = state.get_elapsed_duration()
            assert elapsed is not None
            rate = self.drop_rate * min(1.0, elapsed.value / self.drop_warmup.value)
            self._set_rates(_blocks(state.model), rate)
            logger.log_metrics({"stochastic_depth/drop_rate": rate})
            return
        for module in list(state.model.modules()):
            if type(module) in STOCHASTIC:
                module.__class__ = STOCHASTIC[type(module)]
        blocks = _blocks(state.model)
        for block in blocks:
            block.drop_per_sample = self.stochastic_method == "sample"
        self._set_rates(blocks, self.drop_rate)
        logger.log_hyperparameters({"stochastic_depth/num_stochastic_layers": len(blocks)})

    def _set_rates(self, blocks: list[StochasticBlock], rate: float) -> None:
        for index, block in enumerate(blocks, start=1):
            share = index / len(blocks) if self.drop_distribution == "linear" else 1.0
            # In float32 like the published code, so that evaluation is bit-identical.
            block.keep_probability = float(1 - torch.tensor(share * rate, dtype=torch.float32))


def _blocks(model: nn.Module) -> list[StochasticBlock]:
    """Return the stochastic blocks from first to last."""
    return [module for module in model.modules() if isinstance(module, StochasticBlock)]
