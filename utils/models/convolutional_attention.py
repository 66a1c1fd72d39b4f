"""Attention that is a convolution: one head for every weight of the kernel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvolutionalAttention(nn.Module):
    """Multi-head attention, by relative position alone, that approaches a convolution.

    Images [batch, channels, rows, columns] → [batch, out, rows, columns], one token a pixel. Empty
    tokens lie around the image, as zeros do around that of a convolution. Source:
    cordonnier2020relationship.

    Args:
        kernel: [out, channels, size, size], of odd size, as `nn.Conv2d` has it.
        sharpness: α > 0. A head attends with softmax(−α‖δ − Δ‖²) over the shifts δ from a token to
            all others, Δ being its own place in the kernel: with large α to the token at Δ alone.
        heads: Which places in the kernel have a head, row by row; all if None.

    Raises:
        ValueError: For an even size and an α that is not above 0.

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> from utils.models.convolutional_attention import ConvolutionalAttention
        >>> kernel, image = torch.rand(2, 3, 3, 3), torch.rand(1, 3, 5, 5)
        >>> attention = ConvolutionalAttention(kernel, sharpness=100.0)
        >>> torch.allclose(attention(image), F.conv2d(image, kernel, padding=1), atol=1e-4)
        True
    """

    def __init__(self, kernel: Tensor, sharpness: float, heads: list[int] | None = None) -> None:
        super().__init__()
        size = kernel.shape[-1]
        if size % 2 == 0 or kernel.shape[-2] != size:
            raise ValueError(
                f"A kernel of {kernel.shape[-2]}×{size} has no middle to shift from: give a square "
                "one of odd size."
            )
        if sharpness <= 0:
            raise ValueError(f"A sharpness of {sharpness} attends nowhere: give one above 0.")
        self.frame, self.sharpness = size // 2, sharpness
        chosen = list(range(size * size)) if heads is None else heads
        places = torch.arange(-self.frame, self.frame + 1)
        shifts = torch.cartesian_prod(places, places)[chosen].to(kernel)
        self.register_buffer("shifts", shifts)  # [heads, 2], in tokens
        self.register_buffer("mixing", kernel.flatten(2)[..., chosen])  # [out, channels, heads]

    def attention(self, rows: int, columns: int) -> Tensor:
        """The attention of every head, row by row of the image.

        Args:
            rows: Of the image.
            columns: Of the image.

        Returns:
            [heads, tokens, tokens and empty tokens], whose rows sum to one.
        """
        frame = self.frame
        inside = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        around = torch.cartesian_prod(
            torch.arange(-frame, rows + frame), torch.arange(-frame, columns + frame)
        )
        away = (around - inside[:, None]).to(self.shifts)  # [tokens, keys, 2]
        distance = (away - self.shifts[:, None, None]).square().sum(-1)
        return (-self.sharpness * distance).softmax(-1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [batch, channels, rows, columns] → [batch, out, rows, columns]."""
        rows, columns = images.shape[-2:]
        values = F.pad(images, [self.frame] * 4).flatten(2)  # [batch, channels, keys]
        heads = torch.einsum("hqk,bck->bhqc", self.attention(rows, columns), values)
        mixed = torch.einsum("bhqc,och->boq", heads, self.mixing)
        return mixed.unflatten(-1, (rows, columns))
