"""A dispatch mode that counts floating-point operations with PyTorch's own formulas.

The formulas come from `torch.utils.flop_counter`. Its `FlopCounterMode` also tracks modules, and
under gradient checkpointing its hooks keep the layers' activations alive, so a memory tracker would
see a peak that no run has.

Matrix products and attention count, a multiply-add as two operations; attention counts all pairs,
including those that a causal mask skips.
"""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(TorchDispatchMode):
    """Counts in ``total`` during a ``with``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*_with_all_heads(func, args), **kwargs, out_val=result)
        elif func.name() == "bitsandbytes::gemm_4bit":  # PyTorch has no formula for it
            self.total += 2 * args[0].numel() * args[2][0]
        return result


def _with_all_heads(func: Any, args: Any) -> Any:
    """Expand keys and values to every query head: PyTorch 2.11's formula needs equal heads."""
    first = {"aten::_flash_attention_forward": 0, "aten::_flash_attention_backward": 1}
    if func.name() not in first:
        return args
    place = first[func.name()]  # of the queries; keys and values follow
    heads = args[place].shape[1]
    shared = (x[:, :1].expand(-1, heads, -1) for x in args[place + 1 : place + 3])
    return (*args[: place + 1], *shared, *args[place + 3 :])
