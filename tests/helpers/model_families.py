"""The attention families of timm and torchvision: what AttentionProbe reads, as data, and the page.

`python -m tests.helpers.model_families` writes the page of the book; a test says when it is out of
date.
"""

from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).parents[2] / "chapters" / "appendix_attention_families.md"
SMALL = dict(depth=2, embed_dim=96, num_heads=3)


@dataclass(frozen=True)
class Family:
    """One small model of a family, with random weights, and what must be read from it.

    maps: number of maps in one forward pass; class_rows: how many of them have a class row;
    left_out: number of attention layers without a map over positions; raw: the axes of the eager
    softmax where it is not [batch, heads, queries, keys]: see ARRANGE in eager.py.
    """

    name: str
    model: str
    size: int
    maps: int
    class_rows: int = 0
    left_out: int = 0
    options: dict = field(default_factory=dict)
    raw: str = ""
    note: str = ""


def _vit(name, model, size, class_rows=2, maps=2, left_out=0, raw="", note="", **options):
    options = dict(img_size=size, depth=2) | options
    return Family(name, model, size, maps, class_rows, left_out, options, raw, note)


FAMILIES = [
    _vit("ViT", "vit_tiny_patch16_224", 48),
    _vit("ViT, parallel blocks", "vit_small_patch16_18x2_224", 48, maps=4, class_rows=4),
    _vit("ViT, fused parallel block", "vit_pwee_patch16_reg1_gap_256", 48, 0,
         note="the block itself is the attention layer"),
    _vit("ViT, differential attention", "vit_dlittle_patch16_reg1_gap_256", 48, 0, maps=4,
         raw="b (h 2) q k", note="two softmaxes a layer: the second is `#2`"),
    _vit("ViT, differential parallel block", "vit_dpwee_patch16_reg1_gap_256", 48, 0, maps=4,
         raw="b (h 2) q k", note="two softmaxes a layer: the second is `#2`"),
    _vit("ViT hybrid", "vit_tiny_r_s16_p8_224", 64),
    _vit("DeiT", "deit_tiny_patch16_224", 48),
    _vit("DeiT, distilled", "deit_tiny_distilled_patch16_224", 48, note="2 prefix tokens"),
    _vit("DeiT III", "deit3_small_patch16_224", 48),
    _vit("FlexiViT", "flexivit_small", 48),
    _vit("DINOv2", "vit_small_patch14_dinov2", 56),
    _vit("DINOv2 with registers", "vit_small_patch14_reg4_dinov2", 56, note="5 prefix tokens"),
    _vit("DINOv3", "vit_small_patch16_dinov3", 64, note="5 prefix tokens"),
    _vit("EVA-02", "eva02_tiny_patch14_224", 56),
    _vit("Perception Encoder", "vit_pe_core_tiny_patch16_384", 48, 3, maps=3,
         note="the pooling query of `attn_pool` counts as a class row"),
    _vit("BEiT", "beit_base_patch16_224", 48, **SMALL),
    _vit("BEiT v2", "beitv2_base_patch16_224", 48, **SMALL),
    _vit("BEiT-3", "beit3_base_patch16_224", 48, **SMALL),
    _vit("RADIO", "vit_base_patch16_radio_v3", 64, **SMALL, note="8 prefix tokens"),
    _vit("AIMv2", "aimv2_large_patch14_224", 56, 0, **SMALL),
    _vit("SigLIP", "vit_base_patch16_siglip_224", 48, 0, maps=3, **SMALL,
         note="one query pools: `attn_pool`"),
    _vit("SoViT", "vit_so150m_patch16_reg4_map_256", 48, 0, maps=3, **SMALL,
         note="4 registers, no class token; one query pools: `attn_pool`"),
    _vit("ViT, relative positions", "vit_relpos_small_patch16_224", 48, 0),
    _vit("ViT, relative positions, class token", "vit_relpos_base_patch16_cls_224", 48, **SMALL),
    Family("NaFlexViT", "naflexvit_base_patch16_gap", 48, 2, options=SMALL,
           note="4 registers, no class token"),
    Family("NaFlexViT, pooled by a query", "naflexvit_base_patch16_map", 48, 3, options=SMALL,
           note="one query pools: `attn_pool`"),
    Family("SAM ViT", "samvit_base_patch16_224", 64, 2, raw="(b h) q k",
           note="windows, and one global layer",
           options=SMALL | dict(img_size=64, global_attn_indexes=(1,), window_size=2)),
    _vit("CaiT", "cait_xxs24_224", 48, 2, maps=4,
         note="the softmax, before heads are mixed; the class token joins in the last two layers"),
    _vit("XCiT", "xcit_nano_12_p16_224", 64, 2, left_out=2,
         note="only the class attention at the end; the others attend over channels"),
    _vit("ConViT", "convit_tiny", 48, 1, maps=5, depth=3, local_up_to_layer=2,
         note="gated layers have two softmaxes: by content, and by position (`#2`)"),
    _vit("TNT", "tnt_s_patch16_224", 48, 2, maps=4,
         note="`attn_in` within a patch, `attn_out` between patches"),
    Family("CrossViT", "crossvit_tiny_240", 240, 12, 12, note="cross-attention has one query",
           options=dict(depth=[[1, 1, 0]] * 3)),
    Family("PiT", "pit_ti_224", 96, 12, 12, options=dict(img_size=96)),
    Family("PiT, distilled", "pit_ti_distilled_224", 96, 12, 12, options=dict(img_size=96)),
    Family("VOLO", "volo_d1_224", 64, 20, 2, raw="b h w q k", options=dict(img_size=64),
           note="outlook attention: 9 neighbours around each position count as a window"),
    Family("Swin", "swin_tiny_patch4_window7_224", 56, 12, options=dict(img_size=56)),
    Family("Swin v2", "swinv2_tiny_window8_256", 64, 12, options=dict(img_size=64)),
    Family("Swin v2, timm's CR", "swinv2_cr_tiny_ns_224", 64, 12, options=dict(img_size=64)),
    Family("LeViT", "levit_128s", 96, 11, options=dict(img_size=96)),
    Family("LeViT, convolutional", "levit_conv_128s", 96, 11, options=dict(img_size=96)),
    Family("Twins SVT", "twins_svt_small", 64, 18, raw="b w h q k", options=dict(img_size=64)),
    Family("Twins PCPVT", "twins_pcpvt_small", 64, 16, options=dict(img_size=64)),
    Family("PVT v2", "pvt_v2_b0", 64, 8, note="fewer keys than queries"),
    Family("MViT v2", "mvitv2_tiny", 64, 10, options=dict(img_size=64)),
    Family("MViT v2, class token", "mvitv2_small_cls", 64, 16, 16, options=dict(img_size=64)),
    Family("MaxViT", "maxvit_tiny_tf_224", 64, 22, options=dict(img_size=64)),
    Family("MaxxViT", "maxxvit_rmlp_nano_rw_256", 64, 14, options=dict(img_size=64)),
    Family("CoAtNet", "coatnet_nano_rw_224", 64, 9, options=dict(img_size=64)),
    Family("TinyViT", "tiny_vit_5m_224", 224, 10),
    Family("MobileViT", "mobilevit_xxs", 128, 9,
           note="pixels at one place within their patch: a window"),
    Family("MobileViT v2", "mobilevitv2_050", 128, 9,
           note="one weight a position, shared by all queries: queries are pixels within a patch"),
    Family("EfficientFormer", "efficientformer_l1", 224, 1),
    Family("EfficientFormer v2", "efficientformerv2_s0", 224, 5),
    Family("EfficientViT, MSRA", "efficientvit_m0", 224, 24,
           raw="b q k",
           note="the heads of a layer follow each other: the second is `#2`"),
    Family("Hiera", "hiera_tiny_224", 224, 12, raw="b h w q k"),
    Family("Hiera, SAM 2", "sam2_hiera_tiny", 64, 12),
    Family("NesT", "nest_tiny_jx", 32, 12, raw="b h w q k",
           options=dict(img_size=32, patch_size=1)),
    Family("GCViT", "gcvit_xxtiny", 64, 12, options=dict(img_size=64)),
    Family("DaViT", "davit_tiny", 64, 6, left_out=6,
           note="the other half of the layers attends over channels"),
    Family("FastViT", "fastvit_sa12", 96, 2),
    Family("ViTamin", "vitamin_small_224", 64, 14, options=dict(img_size=64)),
    Family("Visformer", "visformer_tiny", 64, 8, options=dict(img_size=64)),
    Family("MobileNetV4 hybrid", "mobilenetv4_hybrid_medium", 96, 8, note="all heads share keys"),
    Family("NextViT", "nextvit_small", 96, 4),
    Family("SHViT", "shvit_s1", 96, 9, raw="b q k", note="one head"),
    Family("CAFormer", "caformer_s18", 96, 12),
    Family("LowFormer", "lowformer_b0", 96, 7),
    Family("CPUBone", "cpubone_nano", 96, 3),
    Family("CSATv2", "csatv2", 96, 4, left_out=14,
           note="its channel gates compare images of a batch, not positions"),
    Family("iFormer", "iformer_t", 96, 5, raw="b q k", note="one head"),
    _vit("Gemma 4 vision", "gemma4_vit_167m", 48, 0),
    _vit("Qwen3 vision", "qwen3_vit_88m", 64, 0),
    _vit("DeepSeek vision", "deepseek_vit_412m", 56, 0),
    Family("BoTNet", "botnet26t_256", 128, 3, raw="(b h) q k", options=dict(img_size=128)),
    Family("HaloNet", "halonet26t", 256, 3, raw="(b h) w q k", note="blocks with a halo of keys"),
    Family("LambdaNet with halos", "lamhalobotnet50ts_256", 128, 4, left_out=2,
           raw="(b h) w q k", options=dict(img_size=128)),
    Family("GCNet", "gcresnet33ts", 64, 10, raw="b q k", note="one query pools the context"),
    Family("CLIP ResNet", "resnet50_clip", 64, 1, options=dict(img_size=64),
           note="attention pooling at the end"),
]  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """A model with something called attention, or none, that has no map to read: why, in words for
    the page, and what the probe `says`."""

    name: str
    model: str
    why: str
    says: str
    size: int = 64
    layers: str | None = None


_CHANNELS = ("attends over channels", "it attends over channels")
_AXIS = "its softmax over axis {} of "
_NONE = "is a model without attention maps"
UNREADABLE = [
    Refusal("XCiT, main layers", "xcit_nano_12_p16_224", *_CHANNELS, layers="blocks.*"),
    Refusal("DaViT, channel layers", "davit_tiny", *_CHANNELS, layers="*.blocks.*.1.attn"),
    Refusal("EdgeNeXt", "edgenext_xx_small", *_CHANNELS),
    Refusal("CoaT", "coat_lite_tiny", "its softmax is over positions, for each channel of the keys",
            _AXIS.format(2), size=224),
    Refusal("LambdaNet", "lambda_resnet26t",
            "its softmax is over positions, for each channel of the keys",
            "it normalises each key channel over positions"),
    Refusal("EfficientViM", "efficientvim_m1", "its softmax sets time steps of a state-space model",
            "its softmax sets the time steps of a state-space model"),
    Refusal("ResNeSt", "resnest14d", "chooses between branches, not positions", _AXIS.format(1)),
    Refusal("SKNet", "skresnet18", "chooses between branches, not positions", _AXIS.format(1)),
    Refusal("EfficientViT, MIT", "efficientvit_b0", "linear attention without a softmax", _NONE),
    Refusal("SwiftFormer", "swiftformer_xs", "additive attention without a softmax", _NONE),
    Refusal("Bilinear attention", "bat_resnext26ts", "bilinear pooling without a softmax", _NONE,
            size=256),
    Refusal("FocalNet", "focalnet_tiny_srf", "focal modulation: no attention", _NONE),
    Refusal("PoolFormer", "poolformer_s12", "pooling in the place of attention", _NONE),
    Refusal("RepViT", "repvit_m0_9", "convolutions only", _NONE),
    Refusal("ResNet", "resnet18", "convolutions only", _NONE),
]  # fmt: skip


def page() -> str:
    """The page as MyST markdown."""
    rows = [
        f"| {f.name} | `{f.model}` | {f.maps} | {f.class_rows or '–'} | {f.note} |"
        for f in FAMILIES
    ]
    refused = [f"| {r.name} | `{r.model}` | {r.why} |" for r in UNREADABLE]
    return "\n".join(
        [
            "# Which attention can be read",
            "",
            "`AttentionProbe` recognises attention by what the code of a model does, so that a "
            "new family needs no entry. Each family below is nevertheless checked, on a small "
            "model with random weights: the maps equal those of the unfused computation to 10⁻⁵, "
            "their rows sum to 1, the logits are those of a plain forward pass, and no hook stays "
            "on the model.",
            "",
            "*Maps* counts the maps of one forward pass of that small model, *class rows* those "
            "with a row of the class token (– where the model has no class token: ask for "
            '`rows="all"`). Windows count as batch: `[batch · windows, heads, queries, keys]`.',
            "",
            "| family | checked on | maps | class rows | remark |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "torchvision's ViT, Swin and MaxViT are checked in the same way.",
            "",
            "## What cannot be read",
            "",
            "These models or layers form no map from queries to keys at positions. The probe "
            "refuses them with a sentence that says so.",
            "",
            "| family | seen on | reason |",
            "|---|---|---|",
            *refused,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
