"""Images for jobs, some of them damaged."""

import torch

from utils.stimuli.minibatches import Damaged, Dataset


class Images(Dataset):
    """n random images of 32×32 pixels in ten classes, those in `bad` damaged."""

    def __init__(self, n=40, bad=()):
        names = [f"{i}.jpg" for i in range(n)]
        classes = tuple(f"class {i}" for i in range(10))
        super().__init__("noise", torch.arange(n) % 10, classes, self.picture, names)
        self.bad = bad

    def picture(self, i):
        if i in self.bad:
            return Damaged(self.names[i], "it is one of the bad")
        return torch.empty(3, 32, 32).uniform_(generator=torch.Generator().manual_seed(i))
