"""What changed from torch 1.2, torchvision 0.4 and timm 0.6.7 to today in what a stock network consists of.

Every entry was found by comparing files that the old versions wrote with today's networks. None of them changes what
the network computes.
"""

from __future__ import annotations

from types import MappingProxyType

RENAMED = MappingProxyType(
    {
        # torchvision 0.4 to 0.8
        "torchvision.models.mobilenet.MobileNetV2": "torchvision.models.mobilenetv2.MobileNetV2",
        "torchvision.models.mobilenet.InvertedResidual": "torchvision.models.mobilenetv2.InvertedResidual",
        "torchvision.models.mobilenet.ConvBNReLU": "torchvision.ops.misc.Conv2dNormActivation",
        # torchvision 0.9 and 0.10, then 0.11 and 0.12
        "torchvision.models.mobilenetv2.ConvBNActivation": "torchvision.ops.misc.Conv2dNormActivation",
        "torchvision.ops.misc.ConvNormActivation": "torchvision.ops.misc.Conv2dNormActivation",
        # timm 0.6.7
        "timm.models.layers.mlp.Mlp": "timm.layers.mlp.Mlp",
        "timm.models.layers.patch_embed.PatchEmbed": "timm.layers.patch_embed.PatchEmbed",
        "timm.models.vision_transformer.Attention": "timm.layers.attention.Attention",
        "torch.nn.modules.normalization.LayerNorm": "timm.layers.norm.LayerNorm",
    }
)
"""Classes by the names that files have, and by today's."""

LATER = frozenset(
    {
        "_backward_pre_hooks",
        "_forward_hooks_always_called",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
        "_is_full_backward_hook",
        "_load_state_dict_post_hooks",
        "_non_persistent_buffers_set",
        "_state_dict_pre_hooks",
    }
)
"""Attributes that torch 1.2 to 1.7 did not give to its modules yet."""

LATER_BY_CLASS = MappingProxyType(
    {
        # Read only when the padding mode is not "zeros".
        "Conv2d": frozenset({"_reversed_padding_repeated_twice"}),
        # Descriptive only.
        "Conv2dNormActivation": frozenset({"out_channels"}),
        "InvertedResidual": frozenset({"_is_cn", "out_channels"}),
        # None in networks without auxiliary classifiers, then simply absent.
        "GoogLeNet": frozenset({"aux1", "aux2"}),
        "Inception3": frozenset({"AuxLogits"}),
        # Read only while the network is built.
        "MNASNet": frozenset({"alpha", "num_classes"}),
        # Choices that older versions of timm did not have; the stock network takes none of them.
        "VisionTransformer": frozenset(
            {
                *("has_class_token", "pool_include_prefix", "num_reg_tokens", "in_chans", "fix_init", "reg_token"),
                *("head_hidden_size", "weight_init_mode", "dynamic_img_size", "attn_pool"),
            }
        ),
        "PatchEmbed": frozenset({"dynamic_img_pad", "strict_img_size", "output_fmt"}),
        "LayerNorm": frozenset({"_fast_norm"}),
        "Attention": frozenset({"attn_dim", "fused_attn", "head_dim", "gate"}),
    }
)
"""Attributes that older versions of a class lack."""

LATER_MODULES = MappingProxyType(
    {
        "Inception3": ("maxpool1", "maxpool2", "avgpool", "dropout"),
        # Shufflenet's, and empty where it has no weights.
        "InvertedResidual": ("branch1",),
        "VisionTransformer": ("patch_drop", "norm_pre", "head_drop"),
        "Attention": ("q_norm", "k_norm", "norm"),
        "Mlp": ("norm",),
    }
)
"""Layers without weights that older versions called as functions or left out."""

DROPPED = MappingProxyType({"Conv2d": frozenset({"_padding_repeated_twice"})})
"""Attributes that only older versions have; torch 1.5's name of _reversed_padding_repeated_twice."""

DESCRIPTIVE = MappingProxyType(
    {
        "VisionTransformer": frozenset(
            {"pretrained_cfg", "default_cfg", "pretrained_model_args", "_model_args", "feature_info", "_traits"}
        )
    }
)
"""Attributes that say where a network comes from or how it was made, with whatever value, and that it never reads."""
