"""Which way of running ablations is cheapest and exact, decided by a model's structure."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..anatomy import block_names
from ..channels import axes_known
from . import class_row
from .specs import AblationSpec

CLASS_ROW, PREFIX, FULL, PLAIN = (
    "class-token suffix",
    "cached prefix",
    "full run",
    "plain forward",
)
REASONS = {
    CLASS_ROW: "in the last two blocks only the class token changes, which is all the head reads",
    PREFIX: "what comes before the first ablated layer is run once for all conditions",
    FULL: "nothing that could be kept comes before the first ablated layer",
    PLAIN: "nothing is ablated",
}


def layers(specs: Sequence[AblationSpec]) -> frozenset[str]:
    """The names of the modules that a condition changes.

    Args:
        specs: Those of the condition.
    """
    return frozenset(spec.module for spec in specs)


@dataclass(frozen=True)
class Plan:
    """How conditions will be run.

    Attributes:
        name: "class-token suffix", "cached prefix", "full run" or, for an empty condition, "plain
            forward"; several are joined by " + ".
        reason: One sentence.
        block_calls: Forward calls of blocks that come to their end, for a batch that fits into
            memory; those of one image too, by which it is found out once whether the plan holds.
        depth: Those of one plain forward pass.
        each: The name for each condition.
    """

    name: str
    reason: str
    block_calls: int
    depth: int
    each: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}, {self.block_calls} block calls ({self.depth} a pass): {self.reason}"


class Planner:
    """What the structure of a model allows.

    Args:
        model: The model whose parts will be ablated.

    Attributes:
        blocks: The names of its blocks.
        order: The number of each module, by name, in the order in which the model lists them.
        compared: From which block on the class-token suffix has been compared with a full pass.
        not_class_row: Why it is not to be used; None if it may be.
        held: The layers of a condition → whether going on from there has been found to hold.
        not_prefix: Why nothing is kept; None if something may be.
    """

    def __init__(self, model: nn.Module) -> None:
        self.blocks = block_names(model)
        self.order = {name: number for number, (name, _) in enumerate(model.named_modules())}
        self.not_class_row = class_row.why_not(model)
        self.compared = len(self.blocks)
        self.held: dict[frozenset[str], bool] = {}
        self.not_prefix: str | None = None
        self.model = model
        depth = len(getattr(model, "blocks", ()))
        self._last_two = [f"blocks.{depth - 2}.attn", f"blocks.{depth - 1}.attn"]
        self._starts: dict[str, int] = {}

    def _in_last_rows(self, specs: Sequence[AblationSpec]) -> bool:
        """Whether only the class token changes, for a head that reads nothing else."""
        last = self._last_two[1]
        return all(
            spec.on_attention
            and spec.name in self._last_two
            and (spec.query_rows == "class" or (spec.name == last and not callable(spec.keys)))
            for spec in specs
        )

    def start(self, specs: Sequence[AblationSpec]) -> int:
        """How many blocks are finished before the first of the layers begins.

        Args:
            specs: Those of one condition.

        Returns:
            0 … the number of blocks, which it is without specs too.
        """
        return min((self._start(spec.module) for spec in specs), default=len(self.blocks))

    def _start(self, module: str) -> int:
        if module not in self._starts:
            self._starts[module] = next(
                (
                    number
                    for number, block in enumerate(self.blocks)
                    if module.startswith(f"{block}.")
                    or self.order.get(module, 0) <= self.order[block]
                ),
                len(self.blocks),
            )
        return self._starts[module]

    def of(self, specs: Sequence[AblationSpec]) -> str:
        """The name of the plan of one condition.

        Args:
            specs: Those of the condition.

        Returns:
            One of CLASS_ROW, PREFIX, FULL and PLAIN.
        """
        if not specs:
            return PLAIN
        if self.not_class_row is None and self._in_last_rows(specs):
            return CLASS_ROW
        kept = self.start(specs) and self.not_prefix is None and self.held.get(layers(specs), True)
        return PREFIX if kept else FULL

    def unheld(self, conditions: Sequence[Sequence[AblationSpec]]) -> list[frozenset[str]]:
        """The layers to go on from of which it is not known whether that holds.

        Args:
            conditions: The specs of each.

        Returns:
            Those of the conditions that have other layers than all before.
        """
        found = [layers(specs) for specs in conditions if self.of(specs) == PREFIX]
        return [each for each in dict.fromkeys(found) if each not in self.held]

    def faces(self, conditions: Sequence[Sequence[AblationSpec]]) -> bool:
        """Whether channels are ablated of which it is not known along which axis they are.

        Args:
            conditions: The specs of each.
        """
        named = [spec for specs in conditions for spec in specs if spec.channels is not None]
        return not all(axes_known(self.model, spec.module) for spec in named)

    def _first_look(self, conditions: Sequence[Sequence[AblationSpec]]) -> int:
        """The calls of blocks, on one image, by which this is found out."""
        depth, unheld = len(self.blocks), self.unheld(conditions)
        starts = [min(map(self._start, each)) for each in unheld]
        replays = sum(depth - start for start in starts)
        return replays + depth * bool(unheld) + depth * self.faces(conditions)

    def plan(self, conditions: Sequence[Sequence[AblationSpec]], intact: bool) -> Plan:
        """The plan of all conditions, with its price.

        Args:
            conditions: The specs of each.
            intact: Whether the logits of the network as it is are wanted too.

        Returns:
            The plan, which holds unless the first image shows that it does not.
        """
        depth, each = len(self.blocks), [self.of(specs) for specs in conditions]
        starts: dict[str, list[int]] = {}
        for name, specs in zip(each, conditions, strict=True):
            starts.setdefault(name, []).append(self.start(specs))
        calls = sum(depth - start for start in starts.get(PREFIX, ()))
        calls += depth * len(starts.get(FULL, ()))
        if CLASS_ROW in starts:
            start = min(starts[CLASS_ROW])
            calls += depth - (start >= self.compared) + depth - start
        elif intact or PLAIN in starts:
            calls += depth
        if PREFIX in starts and (CLASS_ROW in starts or not (intact or PLAIN in starts)):
            calls += max(starts[PREFIX])
        calls += self._first_look(conditions)
        reason = "; ".join(REASONS[name] for name in starts)
        late = any(specs and self._in_last_rows(specs) for specs in conditions)
        if late and self.not_class_row:
            reason += f" (the class token cannot go on alone: {self.not_class_row})"
        if FULL in starts and self.not_prefix and any(starts[FULL]):
            reason += f" (what does come before is run again: {self.not_prefix})"
        return Plan(" + ".join(starts), f"{reason[0].upper()}{reason[1:]}.", calls, depth, (*each,))
