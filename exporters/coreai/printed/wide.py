"""A program whose fp16 products are summed in float32, as the GPU and Core ML's interpreter here sum them.

Apple's CPU kernels sum the terms of an fp16 product in fp16, one by one: the error grows with the number of terms,
and a product takes far longer than in float32. Neither is a property of the asset.
"""

from __future__ import annotations

import re

_KIND = r"coreai\.(?:(?:decomposable\.)?(?:broadcasting_)?batch_matmul|conv2d)"
_PRODUCT = re.compile(
    rf"^(?P<indent> *)%(?P<name>\w+) = (?P<operation>{_KIND})"
    r" (?P<reads>.*) : \((?P<takes>.*)\) -> (?P<makes>tensor<\w+xf16>)$",
    re.MULTILINE,
)
_HALF = re.compile(r"tensor<(\w+)xf16>")


def with_wide_products(text: str) -> str:
    """The printed program, with casts to float32 before each fp16 product and back to fp16 after it."""
    return _PRODUCT.sub(_wide, text)


def _wide(product: re.Match[str]) -> str:
    name, makes = product["name"], product["makes"]
    reads, takes, casts = [], [], []
    for number, (value, kind) in enumerate(
        zip(product["reads"].split(", "), product["takes"].split(", "), strict=True)
    ):
        wide = _HALF.sub(r"tensor<\1xf32>", kind)
        if wide != kind:
            casts.append(f"%wide{name}_{number} = coreai.cast {value} : {kind} to {wide}")
            value = f"%wide{name}_{number}"
        reads.append(value)
        takes.append(wide)
    made = _HALF.sub(r"tensor<\1xf32>", makes)
    lines = [
        *casts,
        f"%wide{name} = {product['operation']} {', '.join(reads)} : ({', '.join(takes)}) -> {made}",
        f"%{name} = coreai.cast %wide{name} : {made} to {makes}",
    ]
    return "\n".join(product["indent"] + line for line in lines)
