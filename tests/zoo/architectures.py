"""Architectures of timm, transformers and torchvision with random weights, as small as they go, with a batch each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

N = 4


def photos(size: int = 64, n: int = N) -> torch.Tensor:
    return torch.randn(n, 3, size, size)


def words(n: int = N, length: int = 12) -> dict[str, torch.Tensor]:
    """Token ids without padding."""
    return {"input_ids": torch.randint(5, 90, (n, length)), "attention_mask": torch.ones(n, length, dtype=torch.long)}


#: name → size of the image, options, samples where a BatchNorm sees one vector a sample
TIMM = {
    "resnet18": (64, {}), "resnet50_gn": (64, {}), "resnetv2_50d_evos": (64, {"layers": (1, 1, 1, 1)}),
    "resnetv2_50d_frn": (64, {"layers": (1, 1, 1, 1)}), "resnetv2_50x1_bit": (64, {}),
    "seresnet18": (64, {}), "densenet121": (64, {"block_config": (2, 2, 2, 2)}), "regnetx_002": (64, {}),
    "mobilenetv3_small_050": (64, {}), "efficientnet_b0": (64, {}), "tf_efficientnetv2_b0": (64, {}),
    "ghostnet_100": (64, {}), "repvgg_a0": (64, {}), "dla34": (64, {}), "convnext_atto": (64, {}),
    "convnextv2_atto": (64, {}), "poolformer_s12": (64, {}), "edgenext_xx_small": (64, {}), "mobilevit_xxs": (64, {}),
    "fastvit_t8": (64, {}), "inception_v3": (107, {}), "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 3}),
    "deit_tiny_distilled_patch16_224": (64, {"img_size": 64, "depth": 3}),
    "swin_tiny_patch4_window7_224": (56, {
        "img_size": 56, "window_size": 7, "depths": (1, 1, 2, 1), "embed_dim": 48, "num_heads": (2, 2, 4, 4),
    }),
    "mixer_s32_224": (64, {"img_size": 64}), "resmlp_12_224": (64, {"img_size": 64}),
    "gmlp_s16_224": (64, {"img_size": 64}), "levit_128s": (64, {"img_size": 64}, 24),
    "xcit_nano_12_p16_224": (64, {"depth": 3}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 3}), "pvt_v2_b0": (64, {}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 3}),
}  # fmt: skip

_TINY = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip
#: Model class → configuration class, options
TRANSFORMERS = {
    "BertModel": ("BertConfig", _TINY),
    "RobertaModel": ("RobertaConfig", _TINY),
    "AlbertModel": ("AlbertConfig", {**_TINY, "embedding_size": 16}),
    "DistilBertModel": (
        "DistilBertConfig", {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    ),
    "GPT2Model": ("GPT2Config", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "OPTModel": ("OPTConfig", {**_TINY, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "LlamaModel": ("LlamaConfig", {**_TINY, "num_key_value_heads": 2}),
    "MistralModel": ("MistralConfig", {**_TINY, "num_key_value_heads": 2}),
    "Qwen3Model": ("Qwen3Config", {**_TINY, "num_key_value_heads": 2, "head_dim": 8}),
    "GemmaModel": ("GemmaConfig", {**_TINY, "num_key_value_heads": 2, "head_dim": 8}),
    "Gemma2Model": ("Gemma2Config", {**_TINY, "num_key_value_heads": 2, "head_dim": 8}),
    "T5EncoderModel": (
        "T5Config", {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    ),
    "MambaModel": ("MambaConfig", {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "ViTModel": ("ViTConfig", {**_TINY, "image_size": 32, "patch_size": 8}),
    "ConvNextModel": ("ConvNextConfig", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}),
    "ResNetModel": ("ResNetConfig", {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}),
    "MobileNetV2Model": ("MobileNetV2Config", {"depth_multiplier": 0.35}),
    "SegformerModel": (
        "SegformerConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
    ),
    "Wav2Vec2Model": ("Wav2Vec2Config", {
        **_TINY, "conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "mask_time_prob": 0.0,
        "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    }),
}  # fmt: skip

TORCHVISION = (
    "resnet18", "googlenet", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v2", "squeezenet1_1", "convnext_tiny",
    "segmentation.lraspp_mobilenet_v3_large", "detection.backbone",
)  # fmt: skip


def _timm(name: str):
    import timm

    size, options, *n = TIMM[name]
    return timm.create_model(name, pretrained=False, num_classes=7, **options), photos(size, *n)


def _transformers(name: str):
    import transformers

    config, options = TRANSFORMERS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**options))
    if name == "Wav2Vec2Model":
        return model, {"input_values": torch.randn(N, 1600)}
    size = {"ViTModel": 32}.get(name, 64)
    return model, {"pixel_values": photos(size)} if model.main_input_name == "pixel_values" else words()


def _torchvision(name: str):
    from torchvision import models

    if name == "detection.backbone":  # whose BatchNorms are frozen
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

        return resnet_fpn_backbone(backbone_name="resnet18", weights=None), photos(64)
    options = {"init_weights": False} if name == "googlenet" else {}
    if "." in name:
        options = {"weights_backbone": None}
        return getattr(models.segmentation, name.split(".")[1])(weights=None, num_classes=3, **options), photos(64)
    return getattr(models, name)(weights=None, num_classes=7, **options), photos(64)


#: "timm: resnet18" → a function that gives the model and a batch
ARCHITECTURES: dict[str, Callable[[], tuple[nn.Module, object]]] = {
    f"{library}: {name}": (lambda make=make, name=name: make(name))
    for library, make, names in (
        ("timm", _timm, TIMM), ("transformers", _transformers, TRANSFORMERS),
        ("torchvision", _torchvision, TORCHVISION),
    )
    for name in names
}  # fmt: skip
