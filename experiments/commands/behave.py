"""`python -m experiments behave`."""

from experiments.commands.options import Measuring
from experiments.tasks.behave import MEASURES, Behave

add = Measuring(
    "behave",
    "accuracy under corruptions, attacks and permuted patches, decisions kept under shifts, "
    "shape bias",
    "  python -m experiments behave vit-d6-h4 resnet-d20 -n 200 --measures corruption shift\n"
    "  python -m experiments behave vit-d6-h4 resnet-d20 --data objects/cue-conflict\n",
    MEASURES,
    Behave,
).add
