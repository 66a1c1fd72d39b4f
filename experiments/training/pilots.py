"""Pilots: models trained with other recipes, never published, by which a recipe was chosen."""

import json
from pathlib import Path

import pandas as pd

from experiments.training.recipes import Recipe

SHOWN = ("optimizer", "lr", "fallback", "weight_decay", "batch_size", "warmup", "descent")


def table(folder: Path) -> pd.DataFrame:
    """One row for each finished run in folder/<pilot>/<model>, sorted by pilot and model.

    Columns: pilot, model, parts of the recipe, views, loss (nats) and validation accuracy in [0, 1]
    at the end, seconds, what tells the images apart, commit. Raises FileNotFoundError if there is
    none.
    """
    rows = []
    for file in sorted(Path(folder).rglob("record.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        recipe = Recipe(**record["recipe"] | {"branches": tuple(record["recipe"]["branches"])})
        end = record["curve"][-1]
        rows.append(
            {
                "pilot": file.parents[1].relative_to(folder).as_posix(),
                "model": file.parent.name,
                **{key: getattr(recipe, key) for key in SHOWN},
                "views": record["views"],
                "loss": end["train_loss"],
                "accuracy": end["validation_accuracy"],
                "seconds": record["seconds"],
                "images": record["images_sha256"][:12],
                "commit": record["commit"],
            }
        )
    if not rows:
        raise FileNotFoundError(f"{folder} holds no finished run: train some pilots into it first.")
    return pd.DataFrame(rows).round({"loss": 4, "accuracy": 4})
