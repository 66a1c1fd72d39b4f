"""What a network needs of a picture: how much is lost when a part of it is hidden."""

import torch
from torch import Tensor, nn

from .responses import finite_logits


@torch.no_grad()
def fall_when_hidden(
    model: nn.Module, images: Tensor, labels: Tensor, window: int = 8, step: int = 4
) -> Tensor:
    """How far the log-probability of the true class falls when a window is hidden.

    The window takes the mean colour of its image, and every place that it can have on a grid of
    `step` pixels. Where hiding helps, the fall is negative. Source: zeiler2014visualizing. Chapter
    1.

    Args:
        model: Takes images and gives logits [batch, classes]; in evaluation mode.
        images: [batch, 3, height, width], on the device of the model.
        labels: int64 [batch], the true classes.
        window: Side of the window in pixels.
        step: From one window to the next, in pixels.

    Returns:
        The fall in nats [batch, rows, columns], on the CPU.

    Raises:
        ValueError: For a window that does not fit, a step below 1, and labels that are not as many
            as the images.

    Example:
        >>> import torch
        >>> from utils.measures import occlusion
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> occlusion.fall_when_hidden(model, torch.rand(2, 3, 32, 32), torch.tensor([0, 1])).shape
        torch.Size([2, 7, 7])
    """
    height, width = images.shape[-2:]
    if not (1 <= window <= min(height, width) and step >= 1):
        raise ValueError(
            f"A window of {window} px, moved by {step}, does not fit images of {height} × {width} "
            "px: choose a smaller window, and a step of 1 or more."
        )
    if len(labels) != len(images):
        raise ValueError(f"{len(images)} images need as many labels, not {len(labels)}.")

    def log_probability(pictures: Tensor) -> Tensor:
        logits = finite_logits(model(pictures), model)
        return logits.log_softmax(-1)[torch.arange(len(labels)), labels].cpu()

    intact, grey = log_probability(images), images.mean(dim=(2, 3), keepdim=True)
    rows = range(0, height - window + 1, step)
    columns = range(0, width - window + 1, step)
    fall = torch.zeros(len(images), len(rows), len(columns))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            hidden = images.clone()
            hidden[:, :, top : top + window, left : left + window] = grey
            fall[:, i, j] = intact - log_probability(hidden)
    return fall
