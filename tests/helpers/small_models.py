"""Small networks whose ablation is counted block by block, with images and removals for them."""

import timm
import torch

from helpers.naive_ablation import lively
from utils.models.architectures import Spec, build
from utils.probes import AblationSpec
from utils.probes.anatomy import block_names

BATCH, DEPTH = 3, 4


def noise(size=32, batch=BATCH):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def vit(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    options = dict(img_size=48, depth=DEPTH, num_classes=5) | options
    return lively(timm.create_model(name, **options), noise(48))


def embedded(name):
    return lively(build(Spec.parse(name)), noise())


def random_keys(heads=3, keys=9, k=3, batch=BATCH, prefix=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(batch, heads, keys, generator=generator).argsort(-1)
    return order[..., :k] + prefix


def row(block, seed=0, keys=None, **options):
    keys = random_keys(seed=seed) if keys is None else keys
    return AblationSpec(f"blocks.{block}.attn", keys=keys, **options)


def hooks_on(model) -> int:
    return sum(len(v) for m in model.modules() for k, v in vars(m).items() if "_hooks" in k)


class Counter:
    """Counts the forward calls of a model's blocks."""

    def __init__(self, model):
        self.model, self.calls = model, 0

    def __enter__(self):
        self.handles = [
            self.model.get_submodule(name).register_forward_hook(self._count)
            for name in block_names(self.model)
        ]
        return self

    def _count(self, *_):
        self.calls += 1

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()
