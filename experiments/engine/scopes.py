"""Which of a model's layers are measured: all, or the one at a given depth."""

# The share of the depth at which one layer is taken.
SCOPES = {"1/3": 1 / 3, "2/3": 2 / 3, "last": 1.0, "all": None}


def at_scope(layers: list[str], scope: str) -> list[str]:
    """The layers of a scope: the one nearest to ⅓ or ⅔ of the depth, the last, or all of them.

    scope : one of SCOPES. Of six layers, the second is at a third of the depth.
    """
    share = SCOPES[scope]
    return layers if share is None else [at_depth(layers, share)]


def at_depth(layers: list[str], share: float) -> str:
    """The layer nearest to a share of the depth, in (0, 1]; the last is at 1."""
    return layers[max(0, round(share * len(layers)) - 1)]
