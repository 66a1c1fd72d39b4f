"""Networks whose products with weights are in bfloat16, for processors where that is faster."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def in_bf16(model: nn.Module) -> nn.Module:
    """The same model, with the products of its linear layers and convolutions in bfloat16.

    Their outputs, and all else (attention, norms, residual stream, whatever is measured of it),
    stay in float32. Weights are rounded once, when this is called.

    Args:
        model: Any network in float32, on the device that it is to run on; it is changed.

    Returns:
        The model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from utils.models.precision import in_bf16
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.fill_(1 + 2**-10)  # between two numbers of bfloat16
        >>> in_bf16(layer)(torch.ones(2)).item()
        2.0
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.forward = _Rounded(module)
    return model


class _Rounded:
    """The forward pass of a layer, in bfloat16."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        self.layer = layer
        self.weight = layer.weight.detach().bfloat16()
        self.bias = None if layer.bias is None else layer.bias.detach().bfloat16()

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, self.weight, self.bias).float()
        return self.layer._conv_forward(x, self.weight, self.bias).float()
