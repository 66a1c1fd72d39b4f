"""Attention and activations of models as people have them: wrapped, renamed, trained, unusual."""

import copy
import threading
from functools import cache, partial
from itertools import product

import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers.eager import every_softmax
from timm.layers import set_reentrant_ckpt
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import Normalize

from faults.case import Case
from utils.probes import ActivationRecorder, AttentionProbe, attention_maps, token_layout

VIT = dict(img_size=48, depth=2, num_classes=5)
SMALL = VIT | dict(embed_dim=48, num_heads=3)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- wrapped models


class Own(nn.Module):
    """A module of one's own around a backbone, with a head and a flag that says something else."""

    def __init__(self, model):
        super().__init__()
        self.scale, self.backbone, self.head = nn.Identity(), model, nn.Identity()

    def forward(self, x):
        return self.head(self.backbone(self.scale(x)))


WRAPPERS = {
    "Normalize": ("1.", lambda m: nn.Sequential(Normalize((0.5,) * 3, (0.5,) * 3), m)),
    "DataParallel": ("module.", nn.DataParallel),
    "a module of one's own": ("backbone.", Own),
    "two wrappers": ("module.backbone.", lambda m: nn.DataParallel(Own(m))),
}
BLOCKS = ["blocks.0.attn", "blocks.1.attn"]
# Model → its options and the layers that have a row of the class token.
WRAPPED = {
    "vit_tiny_patch16_224": (SMALL, BLOCKS),
    "deit_tiny_distilled_patch16_224": (SMALL, BLOCKS),
    "vit_small_patch14_reg4_dinov2": (SMALL | dict(img_size=42), BLOCKS),
    "vit_small_patch16_dinov3": (SMALL, BLOCKS),
    "cait_xxs24_224": (SMALL, ["blocks_token_only.0.attn", "blocks_token_only.1.attn"]),
    "xcit_nano_12_p16_224": (
        SMALL | dict(img_size=64),
        ["cls_attn_blocks.0.attn", "cls_attn_blocks.1.attn"],
    ),
    "convit_tiny": (VIT | dict(local_up_to_layer=1), ["blocks.1.attn"]),
    "tnt_s_patch16_224": (VIT, ["blocks.0.attn_out", "blocks.1.attn_out"]),
}


@cache
def bare(name):
    torch.manual_seed(0)
    options = WRAPPED[name][0]
    return timm.create_model(name, **options).eval(), noise(2, 3, *[options["img_size"]] * 2)


@torch.inference_mode()
def eager_rows(name, normalise=False):
    """The softmax of the model's unfused code at the first query, of the layers that have it."""
    (model, images), layers, maps = bare(name), WRAPPED[name][1], {}
    images = (images - 0.5) / 0.5 if normalise else images

    def record(layer, owner, weights):
        maps.setdefault(layer, weights[:, :, :1].clone())
        return weights

    with pytest.MonkeyPatch.context() as patch, every_softmax(model, patch, record):
        model(images)
    return {layer: maps[layer] for layer in layers}


@torch.inference_mode()
def rows_of(name, wrapper):
    """The class rows that the probe reads of the wrapped model, under the names of the bare one."""
    (model, images), (prefix, wrap) = bare(name), WRAPPERS[wrapper]
    with pytest.warns() if "xcit" in name else _nothing(), AttentionProbe(wrap(model)) as probe:
        probe.model(images)
    return {layer.removeprefix(prefix): maps for layer, maps in probe.maps.items()}


def _nothing():
    return torch.no_grad()


WRAPPED_CASES = [
    Case(
        f"class rows of {name} within {wrapper}",
        lambda _, args=(name, wrapper): rows_of(*args),
        lambda _, args=(name, wrapper == "Normalize"): eager_rows(*args),
    )
    for name, wrapper in product(WRAPPED, WRAPPERS)
] + [
    Case(
        f"tokens of {name} within {wrapper}",
        lambda _, args=(name, wrapper): list(vars(token_layout(wrap(*args))).values()),
        lambda _, name=name: list(vars(token_layout(bare(name)[0])).values()),
    )
    for name, wrapper in product(WRAPPED, WRAPPERS)
]


def wrap(name, wrapper):
    return WRAPPERS[wrapper][1](bare(name)[0])


# --- tokens by the names that libraries give them


class Tokens(nn.Module):
    """A model with parameters of these names and shapes, and one attention layer."""

    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attn(x, x, x)[0]


def held(name, thing):
    model = Tokens()
    setattr(model, name, thing)
    return model


ONE, FOUR = (1, 1, 8), (1, 4, 8)
KNOWN = {
    "cls_token": ({"cls_token": ONE}, 1),
    "class_token": ({"class_token": ONE}, 1),
    "class_embedding of CLIP": ({"class_embedding": (8,)}, 1),
    "cls_emb": ({"cls_emb": (1, 8)}, 1),
    "cls_token [width]": ({"cls_token": (8,)}, 1),
    "CLS_token": ({"CLS_token": ONE}, 1),
    "cls_tokens": ({"cls_tokens": ONE}, 1),
    "dist_token": ({"cls_token": ONE, "dist_token": ONE}, 2),
    "distillation_token": ({"cls_token": ONE, "distillation_token": ONE}, 2),
    "distill_token": ({"cls_token": ONE, "distill_token": ONE}, 2),
    "reg_token": ({"cls_token": ONE, "reg_token": FOUR}, 5),
    "register_tokens": ({"cls_token": ONE, "register_tokens": FOUR}, 5),
    "register_token": ({"cls_token": ONE, "register_token": FOUR}, 5),
    "storage_tokens": ({"cls_token": ONE, "storage_tokens": FOUR}, 5),
    "register_tokens [n, width]": ({"class_token": ONE, "register_tokens": (4, 8)}, 5),
    "registers alone": ({"reg_token": FOUR}, 4),
    "mask_token": ({"cls_token": ONE, "mask_token": ONE}, 1),
    "cls_token_0 and cls_token_1": ({"cls_token_0": ONE, "cls_token_1": ONE}, 1),
    "a table of classes": ({"cls_token": ONE, "class_embedding": (10, 8)}, 1),
    "pos_embed and type_embedding": ({"pos_embed": (1, 9, 8), "type_embedding": (2, 8)}, 0),
}
UNKNOWN = ("prompt_tokens", "memory_tokens", "meta_token", "global_tokens", "tokens", "pool_token")


def prefix_of(make):
    return token_layout(make()).prefix


def class_rows_of_prompted():
    with AttentionProbe(Tokens(cls_token=ONE, prompt_tokens=FOUR)) as probe:
        probe.model(noise(2, 10, 8))


def all_rows_of_prompted():
    torch.manual_seed(0)
    maps = attention_maps(Tokens(cls_token=ONE, prompt_tokens=FOUR), noise(2, 10, 8), rows="all")
    return maps.shape[-1]


def stated(number):
    model = Tokens(cls_token=ONE, prompt_tokens=FOUR)
    model.num_prefix_tokens = number
    return token_layout(model).prefix


def several(*models):
    return token_layout(nn.ModuleList(models)).prefix


TOKEN_CASES = [
    Case(f"prefix tokens: {name}", lambda _, s=shapes: prefix_of(lambda: Tokens(**s)), prefix)
    for name, (shapes, prefix) in KNOWN.items()
] + [
    Case(
        f"prefix tokens of an unknown kind: {name}",
        lambda _, name=name: prefix_of(lambda: Tokens(**{"cls_token": ONE, name: FOUR})),
        says=("Tokens", name, "num_prefix_tokens"),
    )
    for name in UNKNOWN
]
TOKEN_CASES += [
    Case("class rows of unknown tokens", lambda _: class_rows_of_prompted(), says=("prompt_",)),
    Case("all rows of unknown tokens", lambda _: all_rows_of_prompted(), 10),
    Case("unknown tokens, their number stated", lambda _: stated(5), 5),
    Case("unknown tokens, an old number stated", lambda _: stated(1), says=("prompt_tokens",)),
    Case(
        "a list of registers",
        lambda _: prefix_of(
            lambda: held("register_tokens", nn.ParameterList([nn.Parameter(torch.zeros(FOUR))]))
        ),
        4,
    ),
    Case("an embedding of registers", lambda _: prefix_of(
        lambda: held("register_tokens", nn.Embedding(4, 8))), 4),
    Case("an embedding of words", lambda _: prefix_of(
        lambda: held("embed_tokens", nn.Embedding(100, 8))), 0),
    Case("two models of the same tokens",
         lambda _: several(Tokens(cls_token=ONE), Tokens(class_token=ONE)), 1),
    Case("two models of other tokens",
         lambda _: several(Tokens(cls_token=ONE), Tokens(cls_token=ONE, reg_token=FOUR)),
         says=("ModuleList", "1 prefix tokens", "5", "give one of them")),
]  # fmt: skip


@cache
def transformer(kind):
    """A small model of the transformers library, its images and its number of prefix tokens."""
    import transformers as hf  # takes seconds

    torch.manual_seed(0)
    size = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=48)
    size |= dict(intermediate_size=48, patch_size=16)
    model, prefix = {
        "ViT": lambda: (hf.ViTForImageClassification(hf.ViTConfig(**size)), 1),
        "DeiT": lambda: (hf.DeiTModel(hf.DeiTConfig(**size)), 2),
        "DINOv2 with registers": lambda: (
            hf.Dinov2WithRegistersModel(
                hf.Dinov2WithRegistersConfig(**size, num_register_tokens=3, mlp_ratio=2)
            ),
            4,
        ),
        "DINOv3": lambda: (hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**size, num_register_tokens=4)), 5),
        "CLIP": lambda: (hf.CLIPVisionModel(hf.CLIPVisionConfig(**size)), 1),
    }[kind]()
    return model.eval(), noise(2, 3, 48, 48), prefix


@torch.inference_mode()
def transformer_rows(kind, eager=False):
    """Prefix, and class rows: read by the probe, or what the library itself gives out."""
    model, images, prefix = transformer(kind)
    if eager:
        model.set_attn_implementation("eager")
        maps = model(images, output_attentions=True).attentions
        model.set_attn_implementation("sdpa")
        return [prefix, *(weights[:, :, :1] for weights in maps)]
    with AttentionProbe(model) as probe:
        model(images)
    return [token_layout(model).prefix, *probe.maps.values()]


TRANSFORMERS = [
    Case(
        f"transformers' {kind}",
        lambda _, kind=kind: transformer_rows(kind),
        lambda _, kind=kind: transformer_rows(kind, eager=True),
        slow=kind == "ViT",  # the first one waits for the library
    )
    for kind in ("ViT", "DeiT", "DINOv2 with registers", "DINOv3", "CLIP")
]


# --- gradient checkpointing and threads


@cache
def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **SMALL).eval()


class Encoder(nn.Module):
    """torch's own encoder layer, whose forward is computed twice in training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def forward(self, x):
        return checkpoint(self.layer, x, use_reentrant=False)


def checkpointed(read, reentrant, inside):
    """What is read of a pass with gradients, and the gradient of the images."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()
    model.set_grad_checkpointing()
    images = noise(4, 3, 48, 48).requires_grad_()
    set_reentrant_ckpt(reentrant)
    try:
        with read(model) as probe:
            loss = model(images).square().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
    finally:
        set_reentrant_ckpt(False)
    return [_read(probe), images.grad]


def once(read):
    images = noise(4, 3, 48, 48).requires_grad_()
    with torch.no_grad(), read(vit()) as probe:
        vit()(images)
    (gradient,) = torch.autograd.grad(vit()(images).square().sum(), images)
    return [_read(probe), gradient]


def _read(probe):
    return probe.maps if isinstance(probe, AttentionProbe) else probe.outputs


READERS = {
    "class rows": AttentionProbe,
    "all rows": partial(AttentionProbe, rows="all"),
    "activations": partial(ActivationRecorder, layers="blocks.*.mlp.act"),
}


def whole_model_twice(read):
    """The pass of the whole model is computed a second time in backward."""
    images = noise(4, 3, 48, 48).requires_grad_()
    with read(vit()) as probe:
        checkpoint(vit(), images, use_reentrant=False).sum().backward()
    return _read(probe)


def encoder_twice(rows):
    model, x = Encoder(), noise(3, 5, 8).requires_grad_()
    with AttentionProbe(model, rows=rows) as probe:
        out = model(x)
    out.square().sum().backward()
    return [list(probe.maps["layer.self_attn"].shape), x.grad]


def encoder_once(queries):
    model, x = Encoder(), noise(3, 5, 8).requires_grad_()
    model.layer(x).square().sum().backward()
    return [[3, 2, queries, 5], x.grad]


def in_threads(read, number):
    model = vit()
    with read(model) as probe:
        threads = [
            threading.Thread(target=model, args=(noise(1, 3, 48, 48, seed=i),))
            for i in range(number)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _read(probe)


def each_its_own(read):
    """One copy of the model and one probe in each of two threads."""
    found, copies = {}, [copy.deepcopy(vit()) for _ in range(2)]

    def work(i):
        with torch.no_grad(), read(copies[i]) as probe:
            copies[i](noise(4, 3, 48, 48))
        found[i] = _read(probe)

    for thread in (threads := [threading.Thread(target=work, args=(i,)) for i in range(2)]):
        thread.start()
    for thread in threads:
        thread.join()
    return [found[0], found[1]]


TWICE = [
    Case(
        f"gradient checkpointing: {name}, {'re-entrant' if reentrant else 'as advised'}, backward "
        f"{'inside' if inside else 'outside'}",
        lambda _, args=(READERS[name], reentrant, inside): checkpointed(*args),
        lambda _, read=READERS[name]: once(read),
    )
    for name, reentrant, inside in product(READERS, (True, False), (True, False))
]
TWICE += [
    Case(
        f"gradient checkpointing of the whole model: {name}",
        lambda _, read=read: whole_model_twice(read),
        lambda _, read=read: once(read)[0],
    )
    for name, read in READERS.items()
]
TWICE += [
    Case(
        f"gradient checkpointing of nn.MultiheadAttention, {rows} rows",
        lambda _, rows=rows: encoder_twice(rows),
        lambda _, queries=queries: encoder_once(queries),
    )
    for rows, queries in (("class", 1), ("all", 5))
]
THREADS = [
    Case(
        f"one model in {number} threads: {name}",
        lambda _, args=(read, number): in_threads(*args),
        says=("another thread", "copy of the model"),
    )
    for (name, read), number in product(READERS.items(), (1, 4))
] + [
    Case(
        f"a copy and a probe in each thread: {name}",
        lambda _, read=read: each_its_own(read),
        lambda _, read=read: [once(read)[0]] * 2,
    )
    for name, read in READERS.items()
]


# --- attention that works sequence first, or says its heads in another way


class SequenceFirst(nn.Module):
    """Attention as fairseq and older open_clip compute it: [tokens, batch, width]."""

    def __init__(self, heads, says=None, kernel="softmax"):
        super().__init__()
        self.count, self.kernel = heads, kernel
        if says:
            setattr(self, says, heads)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))

    def forward(self, x):
        tokens, batch, width = x.shape
        q = x.reshape(tokens, batch * self.count, -1).transpose(0, 1)  # [batch · heads, tokens, …]
        if self.kernel == "softmax":
            out = (q @ q.mT / q.shape[-1] ** 0.5).softmax(-1) @ q
        else:
            out = F.scaled_dot_product_attention(q, q, q)
        return out.transpose(0, 1).reshape(tokens, batch, width)


def sequence_first(tokens, batch, heads, says, kernel, rows):
    model, x = SequenceFirst(heads, says, kernel), noise(tokens, batch, 8 * heads)
    with AttentionProbe(model, rows=rows) as probe:
        model(x)
    return probe.maps["SequenceFirst"]


def by_image_and_head(tokens, batch, heads, rows):
    """In float64, image by image and head by head."""
    x = noise(tokens, batch, 8 * heads).double().numpy()
    found = np.empty((batch, heads, tokens, tokens))
    for image, head in product(range(batch), range(heads)):
        q = x[:, image, 8 * head : 8 * head + 8]
        scores = q @ q.T / 8**0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        found[image, head] = weights / weights.sum(-1, keepdims=True)
    return found[:, :, :1] if rows == "class" else found


SEQUENCES = [
    Case(
        f"sequence first: {tokens} tokens, {batch} images, {heads} heads as {says}, {kernel}, "
        f"{rows} rows",
        lambda _, args=(tokens, batch, heads, says, kernel, rows): sequence_first(*args),
        lambda _, args=(tokens, batch, heads, rows): by_image_and_head(*args),
    )
    for (tokens, batch, heads), says, kernel, rows in product(
        ((10, 2, 3), (8, 2, 3), (5, 7, 2), (6, 6, 2), (7, 1, 4), (9, 4, 1)),
        ("num_heads", "n_head"),
        ("softmax", "kernel"),
        ("class", "all"),
    )
    if rows == "all" or says == "num_heads"
]


# --- attention that the code hides


def two_steps_away(x):
    return _nearer(x)


def _nearer(x):
    return (x @ x.mT).softmax(-1) @ x


class Hidden(nn.Module):
    pass


class InComprehension(Hidden):
    def forward(self, x):
        return torch.stack([(y @ y.mT)[None].softmax(-1)[0] @ y for y in x])


class InLambda(Hidden):
    def forward(self, x):
        attend = lambda y: (y @ y.mT).softmax(-1) @ y  # noqa: E731
        return attend(x)


class InFunction(Hidden):
    def forward(self, x):
        def attend(y):
            def inner(z):
                return F.scaled_dot_product_attention(z, z, z)

            return inner(y)

        return attend(x)


class TwoSteps(Hidden):
    def forward(self, x):
        return two_steps_away(x)


kernel_by_another_name = F.scaled_dot_product_attention


class Renamed(Hidden):
    def forward(self, x):
        return kernel_by_another_name(x, x, x)


class Given(Hidden):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x @ x.mT) @ x


def closed_over(function):
    class Closed(Hidden):
        def forward(self, x):
            return function(x @ x.mT) @ x

    return Closed()


HIDDEN = {
    "in a comprehension": (InComprehension, 1),
    "in a lambda": (InLambda, 1),
    "in a function within a function": (InFunction, 8**-0.5),
    "two functions away": (TwoSteps, 1),
    "a kernel under another name": (Renamed, 8**-0.5),
    "a partial of softmax": (lambda: Given(partial(F.softmax, dim=-1)), 1),
    "a lambda that the layer was given": (lambda: Given(lambda s: s.softmax(-1)), 1),
    "a function that is closed over": (lambda: closed_over(partial(torch.softmax, dim=-1)), 1),
    "a module": (lambda: Given(nn.Softmax(-1)), 1),
}


def hidden(make):
    model = make()
    with AttentionProbe(model, rows="all") as probe:
        model(noise(1, 5, 8))
    (maps,) = probe.maps.values()
    return maps


def _hand(scale):
    x = noise(1, 5, 8).double()
    return (x @ x.mT * scale).softmax(-1)[:, None]


class ByHand(nn.Module):
    def forward(self, x):
        weights = (x @ x.mT).exp()
        return weights / weights.sum(-1, keepdim=True) @ x


HIDDEN_CASES = [
    Case(f"attention {where}", lambda _, make=make: hidden(make), _hand(scale))
    for where, (make, scale) in HIDDEN.items()
] + [
    Case("attention by exp and sum", lambda _: hidden(ByHand), says=("ByHand", "names no softmax")),
    Case(
        "convolutions",
        lambda _: attention_maps(torchvision.models.squeezenet1_1(), noise(1, 3, 64, 64)),
        says=("SqueezeNet", "without attention maps"),
    ),
]


def compiled(wrapper):
    model = wrap("cait_xxs24_224", wrapper)
    return attention_maps(torch.compile(model), noise(1, 3, 48, 48))


COMPILED = [
    Case(
        f"compiled within {wrapper}",
        lambda _, wrapper=wrapper: compiled(wrapper),
        says=("compiled", "before compiling"),
    )
    for wrapper in WRAPPERS
]

CASES = [
    *(WRAPPED_CASES + TOKEN_CASES + TRANSFORMERS + TWICE + THREADS),
    *(SEQUENCES + HIDDEN_CASES + COMPILED),
]
