"""The Lab's guided steps: tasks, each with a state of the page that shows what is asked for.

Every state is found among the Lab's own pictures by a rule, so that it is true of whatever networks
are there. Where no picture keeps to the rule, the step says so.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..measures.ablation import AblationProfile, ablation_profile
from ..probes import token_layout
from ..stimuli import objects
from . import lab_data

FEW = 3  # patches
SMALL = 0.05  # nats; less is no change to speak of
RANKS = 9  # of the curves; among them is `FEW`
STRONG = 5  # times the attention that an even spread gives, at one offset, mean over pictures
KINDS = {"vit": "ViT", "cnn": "ResNet"}
NEAR = 2  # patches, the farthest offset


@dataclass(frozen=True)
class Step:
    """A task.

    Attributes:
        title: A few words.
        task: What to do.
        found: What the state shows, or that none was found.
        state: The page's address after "#"; None if nothing was found.
        facts: What the page shows there: answers of networks, KL, k, offsets.
    """

    title: str
    task: str
    found: str
    state: str | None
    facts: dict


def steps() -> list[dict]:
    """The six steps, as the page's data hold them."""
    search = _Search()
    found = [
        search.few(),
        search.matched(),
        search.conflict(),
        search.permuted(),
        search.bottom(),
        search.neighbour(),
    ]
    return [asdict(step) for step in found]


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith('hour') else 'a'} {noun}"


class _Search:
    def __init__(self) -> None:
        self.shown, self.labels = lab_data.test_pictures()
        self.read = lab_data.read(self.shown.images)
        self.answers = self.read.vit.argmax(1)
        self.right = self.answers == self.labels
        self.named = (self.right, "that the ViT names rightly")
        self.profile = self._profile()
        self.n = self.profile.n

    def _profile(self) -> AblationProfile:
        """What removing patches in all blocks does to each picture, in the order of the pictures.

        What counts as right is the intact answer.
        """
        order = self.shown.index.argsort()
        batch = (self.shown.images[order], self.answers[order], self.shown.index[order])
        vit = lab_data.networks()["vit"]
        options = {"ranks": RANKS, "draws": 1, "matched_draws": 1, "place_draws": 1}
        self.places = order.argsort()  # of the pictures in the profile, which sorts them
        return ablation_profile(vit, [batch], "blocks.*.attn", **options)

    def _table(self, name: str, order: str) -> Tensor:
        """A measure of the profile [pictures, ranks]."""
        return torch.from_numpy(getattr(self.profile, name)[order][0])[self.places]

    def _rank(self, k: int) -> int:
        return self.profile.ranks.tolist().index(k)

    def _picture(self, place: int) -> str:
        """A picture as the sentences name it."""
        name = _a(objects.SHAPES[int(self.labels[place])])
        return f"picture {int(self.shown.index[place])}, {name}"

    def _state(self, place: int, order: str, k: int) -> str:
        name, number = lab_data.NETWORKS["vit"], int(self.shown.index[place])
        return f"net={name}&picture={number}&scope=all&order={order}&k={k}"

    def _kl(self, order: str, k: int) -> Tensor:
        if order == "permuted":
            return torch.from_numpy(self.profile.place["kl"][order][0])[self.places]
        return self._table("kl", order)[:, self._rank(k)]

    def _ablation(
        self, title: str, task: str, order: str, k: int, kept: Tensor, among: tuple, says: str
    ) -> Step:
        """A step that leads to that picture of those kept in which an ablation does most.

        One picture may be an odd one: the step says how many are kept among which, those of a
        mask and its name.
        """
        if not kept.any():
            found = f"None of the {len(kept)} pictures here does it with this ViT."
            return Step(title, task, found, None, {})
        kl = self._kl(order, k)
        place = int(torch.where(kept, kl, -1).argmax())
        facts = {"kl": float(kl[place]), "changed": order != "bottom"}
        mask, whose = among
        found = (
            f"In {self._picture(place)}, {says} (KL {facts['kl']:.2f} nats). So it is in "
            f"{int(kept.sum())} of the {int(mask.sum())} pictures {whose}."
        )
        return Step(title, task, found, self._state(place, order, k), facts)

    def _changes(self, order: str, k: int) -> Tensor:
        return self.right & (self._table("right", order)[:, self._rank(k)] == 0)

    def few(self) -> Step:
        """Removing few strongest patches changes a right answer."""
        return self._ablation(
            "Three patches a head",
            f"In every head of every layer, the class token no longer sees the {FEW} patches that "
            f"it attends to most there; it keeps the other {self.n - FEW}. Find a picture whose "
            "answer this changes, under “Take something away”.",
            "top",
            FEW,
            self._changes("top", FEW),
            self.named,
            "the answer changes",
        )

    def matched(self) -> Step:
        """Where few strongest change a right answer, as much attention elsewhere does so, too."""
        top = self._changes("top", FEW)
        return self._ablation(
            "Or is it the amount?",
            "Take as much attention from each head as those three hold, but at random patches. "
            "Does the answer change as well? Always?",
            "matched",
            FEW,
            top & self._changes("matched", FEW),
            (top, f"whose answer the {FEW} strongest change"),
            "as much attention elsewhere also changes the answer",
        )

    def conflict(self) -> Step:
        """One network names the shape, the other the texture, as surely as any do."""
        mixed = lab_data.mixed_pictures()
        found = lab_data.read(mixed.images)
        apart = mixed.shape != mixed.texture
        title = "Shape or texture?"
        task = (
            "Under “Mix”, give the shape of one class the texture of another, so that the two "
            "networks disagree: one goes by shape, the other by texture."
        )
        said = {"vit": found.vit, "cnn": found.cnn}
        best = (0.0, 0, ("", ""))
        for by_shape, by_texture in (("vit", "cnn"), ("cnn", "vit")):
            pairs = ((by_shape, mixed.shape), (by_texture, mixed.texture))
            split = [said[role].argmax(1) == cue for role, cue in pairs]
            sure = [said[role].gather(1, cue[:, None])[:, 0] for role, cue in pairs]
            sure = torch.where(apart & split[0] & split[1], torch.minimum(*sure), 0)
            best = max(best, (float(sure.max()), int(sure.argmax()), (by_shape, by_texture)))
        sure, place, (by_shape, by_texture) = best
        if not sure:
            none = "In none of the ninety conflicts here do the two disagree in this way."
            return Step(title, task, none, None, {})
        shape, texture = int(mixed.shape[place]), int(mixed.texture[place])
        names = objects.SHAPES[shape], objects.TEXTURES[texture]
        says = (
            f"{_a(names[0]).capitalize()} of {names[1]}: the {KINDS[by_shape]} goes by shape, the "
            f"{KINDS[by_texture]} by texture and says {objects.SHAPES[texture]}."
        )
        facts = {by_shape: shape, by_texture: texture}
        return Step(title, task, says, f"mix={names[0]}.{names[1]}", facts)

    def permuted(self) -> Step:
        """A right answer changes when all weights stay and only their places change."""
        right = torch.from_numpy(self.profile.place["right"]["permuted"][0])[self.places]
        return self._ablation(
            "Same weights, other places",
            "Take nothing away: let every head keep its weights and put them to other patches. "
            "Does it matter where attention lies?",
            "permuted",
            0,
            self.right & (right == 0),
            self.named,
            "it does: the answer changes",
        )

    def bottom(self) -> Step:
        """As many of the weakest go as most answers bear, and nothing changes to speak of."""
        ranks = self.profile.ranks.tolist()
        small = {k: self.right & (self._kl("bottom", k) < SMALL) for k in ranks}
        most = max(k for k in ranks if 2 * small[k].sum() >= self.right.sum())
        return self._ablation(
            "What nobody looks at",
            f"Take away the patches that get the least attention. How many of {self.n} can go "
            f"before the answer moves by {SMALL} nats (KL)?",
            "bottom",
            most,
            small[most] & ~self._changes("bottom", most),
            self.named,
            f"at least {most} can",
        )

    def neighbour(self) -> Step:
        """The head in which patches attend most, on average, to one near offset."""
        prefix = token_layout(lab_data.networks()["vit"]).prefix
        maps = self.read.attention.mean(0)[..., prefix:, prefix:]  # [layers, heads, n, n]
        side = round(self.n**0.5)
        near = range(-NEAR, NEAR + 1)
        offsets = [(dy, dx) for dy in near for dx in near if (dy, dx) != (0, 0)]
        means = torch.stack([_at_offset(maps, side, *offset) for offset in offsets])
        share, best = float(means.max()) * self.n, int(means.argmax())
        offset, head = offsets[best // means[0].numel()], best % means[0].numel()
        layer, head = divmod(head, means.shape[-1])
        head_there = f"layer {layer + 1}, head {head + 1}"
        gives = f"gives the patch {_direction(*offset)} {share:.1f} times its even share"
        found = (
            f"In {head_there}: on average it {gives}."
            if share >= STRONG
            else f"In no head of this ViT. The nearest to it, {head_there}, {gives}."
        )
        middle = side // 2 * side + side // 2 + 1
        picture = int(self.shown.index[lab_data.first()])
        return Step(
            "A head that looks next door",
            "Is there a head in which a patch looks at a neighbour, always on the same side, "
            "whatever the picture? Under “Where they look”, point at patches in turn.",
            found,
            f"picture={picture}&layer={layer + 1}&head={head + 1}&patch={middle}",
            {"layer": layer, "head": head, "offset": offset, "share": share},
        )


def _at_offset(maps: Tensor, side: int, dy: int, dx: int) -> Tensor:
    """The mean attention [layers, heads] of a patch to the one so far down and to the right."""
    grid = maps.unflatten(-1, (side, side)).unflatten(-3, (side, side))
    rows = range(max(0, -dy), min(side, side - dy))
    columns = range(max(0, -dx), min(side, side - dx))
    pairs = [grid[..., row, column, row + dy, column + dx] for row in rows for column in columns]
    return torch.stack(pairs).mean(0)


def _direction(dy: int, dx: int) -> str:
    """An offset in words, such as "2 up and 1 left"."""
    words = ((dy, ("up", "down")), (dx, ("left", "right")))
    return " and ".join(f"{abs(step)} {word[step > 0]}" for step, word in words if step)
