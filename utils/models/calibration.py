"""Batch normalisation of random weights: the statistics by which it normalises, set on images.

As built they are 0 and 1: nothing is normalised, and what such a network shows is not what its
architecture does.
"""

from functools import cache

import numpy as np
import torch
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..stimuli import datasets, photographs
from .architectures import Spec

IMAGES = 512  # of the training images of objects and of CIFAR-10
CROPS = 40  # of the photographs that stand in for ImageNet


def normalised(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that normalise by running statistics, of which a usual ViT has none.

    Args:
        model: Any network.

    Returns:
        Name → module.
    """
    modules = model.named_modules()
    return {k: m for k, m in modules if isinstance(m, _BatchNorm) and m.running_mean is not None}


def calibrate(model: nn.Module, images: Tensor) -> nn.Module:
    """Set the running statistics of batch normalisation to those of `images`; return the model.

    All images pass in one minibatch in which only these layers are in train mode, so that each
    normalises by the very statistics that it keeps. Weights and momentum stay as they are, and the
    model is left in eval mode. A layer that no image reaches in eval mode, such as an auxiliary
    head, stays as it was built.

    Args:
        model: Any network.
        images: float32 [n, 3, h, w], n ≥ 2, prepared for the model and on its device.

    Returns:
        The model.

    Raises:
        ValueError: For fewer than two images and where a statistic is not finite.

    Example:
        >>> import torch
        >>> from utils.models.calibration import calibrate
        >>> model = calibrate(torch.nn.BatchNorm2d(3), torch.full((2, 3, 4, 4), 0.25))
        >>> model.running_mean
        tensor([0.2500, 0.2500, 0.2500])
    """
    if len(images) < 2:
        raise ValueError(f"Statistics need at least 2 images, not {len(images)}: give more.")
    model.eval()
    layers = normalised(model)
    momenta = {name: layer.momentum for name, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.reset_running_stats()
            layer.train().momentum = None  # the mean over all minibatches, of which there is one
        with torch.no_grad():
            model(images)
    finally:
        for name, layer in layers.items():
            layer.eval().momentum = momenta[name]
    for name, layer in layers.items():
        if not (layer.running_mean.isfinite().all() and layer.running_var.isfinite().all()):
            raise ValueError(
                f"The statistics of {name} are not finite on these {len(images)} images: check "
                "that the images are, and take random weights of another seed if they are."
            )
    return model


def training_images(name: str, model: nn.Module) -> Tensor:
    """The images that random weights of that name are calibrated on, prepared for the model.

    The first 512 training images of an embedded model's rung. ImageNet is not available here: for
    all other models these are 40 square crops, drawn with a fixed seed, of photographs that
    scikit-image ships.

    Args:
        name: As for `zoo.create`.
        model: Of that name.

    Returns:
        float32 [n, 3, h, w].

    Raises:
        FileNotFoundError: Where the images are missing.
    """
    known = Spec.parse(name)
    try:
        return _crops(model) if known is None else _first(known.rung)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The batch normalisation of {name} with random weights needs training images. {error}"
        ) from None


@cache
def _first(rung: str) -> Tensor:
    data = datasets.load(f"{rung}/train")
    return data.subset(range(IMAGES), data.source).everything().images


def _crops(model: nn.Module) -> Tensor:
    prepare = create_transform(**resolve_model_data_config(model), is_training=False)
    generator, crops = np.random.default_rng(0), []
    for i in range(CROPS):
        picture = photographs.load(photographs.NAMES[i % len(photographs.NAMES)])
        side = int(min(picture.size) * generator.uniform(0.4, 1))
        left, top = (int(generator.integers(extent - side + 1)) for extent in picture.size)
        crops.append(prepare(picture.crop((left, top, left + side, top + side))))
    return torch.stack(crops)  # [crops, 3, h, w]
