"""A condition whose network is worth ablating, for tests of the tasks."""

from copy import deepcopy

import torch

from experiments.engine.job import Condition
from utils.models import zoo


class Lively(Condition):
    """Random weights under which attention matters; loading them leaves the generator alone."""

    MODEL = zoo.create("vit-d2-h2")

    def load(self):
        model = deepcopy(self.MODEL)
        with torch.no_grad():
            for block in model.blocks:
                block.attn.qkv.weight.mul_(12)
                block.attn.proj.weight.mul_(12)
            model.head.weight.mul_(60)
        return model
