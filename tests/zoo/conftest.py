"""Other people's networks: torchvision beside a torch for the CPU, and no network connection."""

import os
from contextlib import suppress

import torch

# torchvision's compiled operators cannot load beside another build of torch; its models need none but the schema
_OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    with suppress(RuntimeError):  # they have loaded after all
        _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
