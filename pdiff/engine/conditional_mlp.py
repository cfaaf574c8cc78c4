"""A residual MLP that is told a condition: what encoders, decoders, critics of the other generators are made of."""

from torch import Tensor, nn

from pdiff.engine.conditioning import ConditionEmbedding


class ConditionalMLP(nn.Module):
    """Residual layers on a stream that begins linear in the input and the embedded condition, and is read linearly.

    Args:
        inputs: I.
        outputs: O.
        width: of the stream; twice as many hidden units in a block.
        depth: residual blocks.
        condition: C; 0 for none.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, condition: int = 0):
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.last = nn.Linear(width, outputs)
        self.condition = ConditionEmbedding(condition, width) if condition else None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Return `(B, O)` for `x` `(B, I)` and conditions `(B, C)`, NaN or None where there are none."""
        h = self.first(x)
        if self.condition:
            h = h + self.condition(c, x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)
