"""`python -m experiments measure`."""

from experiments.commands.options import Measuring
from experiments.tasks.measure import MEASURES, Measure

add = Measuring(
    "measure",
    "sparsity of attention and activations, attention distance, CKA and accuracy",
    "  python -m experiments measure vit-d6-h4 resnet-d20 --control random\n"
    "  python -m experiments measure efficientnet-lite0 --data photographs/ "
    "--measures activation\n",
    MEASURES,
    Measure,
).add
