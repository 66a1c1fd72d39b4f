"""Images for sweeps, some of them damaged, and what a rank does with them."""

import torch


class Images:
    """A data set of n random images of 32×32 pixels in ten classes, those in `bad` damaged."""

    def __init__(self, n=40, bad=()):
        self.n, self.bad, self.damaged = n, bad, []

    def __len__(self):
        return self.n

    def batch(self, j, size):
        index = torch.arange(j * size, min((j + 1) * size, self.n))
        self.damaged += [f"{i}.jpg" for i in index.tolist() if i in self.bad]
        index = index[~torch.isin(index, torch.tensor(self.bad, dtype=torch.int64))]
        images = torch.empty(len(index), 3, 32, 32)
        for image, i in zip(images, index.tolist(), strict=True):
            image.uniform_(generator=torch.Generator().manual_seed(i))
        return images, index % 10, index
