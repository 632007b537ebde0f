"""From texts to vectors around a model of token ids: tokenising before it, pooling behind it.

Owns `tokenizers`, which is an extra and loaded when first needed. Knows no HTTP and runs no model.
"""

from inferd_agent.embedding.packing import Part, pack, rows_together
from inferd_agent.embedding.pooling import pool
from inferd_agent.embedding.tokens import Tokenisers

__all__ = ["Part", "Tokenisers", "pack", "pool", "rows_together"]
