"""`python -m experiments represent`."""

from experiments.commands.options import Measuring
from experiments.tasks.represent import MEASURES, Represent

add = Measuring(
    "represent",
    "agreement of attention maps, receptive fields, frequency filtering, location and skips",
    "  python -m experiments represent vit-d6-h4 resnet-d20 -n 300 --control random\n"
    "  python -m experiments represent vit-d6-h4 --data cifar10 "
    "--measures agreement location\n",
    MEASURES,
    Represent,
).add
