"""Wrong types get our own words, with the argument's name, also where a plain comparison would fail first."""

import pytest
import torch

from normviz.draw.common import as_array
from normviz.lab import ViT
from normviz.samples import digit_images


@pytest.mark.parametrize("wrong", [{"depth": "3"}, {"width": None}, {"heads": 1.5}, {"patch": 0}, {"depth": True}])
def test_a_size_of_the_vit_that_is_no_whole_number(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}=.* must be an integer >= 1"):
        ViT("ln", **wrong)


@pytest.mark.parametrize("count", ["x", 0, 1798, None, 2.0])
def test_a_count_of_digits(count):
    with pytest.raises(ValueError, match=r"count=.* must be an integer from 1 to 1797"):
        digit_images(count)


def test_a_tensor_without_values():
    with pytest.raises(TypeError, match="x must be a tensor or array of real numbers, got Tensor"):
        as_array(torch.empty(3, device="meta"))
