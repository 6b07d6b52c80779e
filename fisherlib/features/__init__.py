"""Stage 2, token features: one matrix [T_i, d] for each example, extracted, kept on disk, compressed."""

from fisherlib.features.compress import compress
from fisherlib.features.extract import extract_features
from fisherlib.features.logits import Matrix, check_head, logits_in_blocks
from fisherlib.features.token_features import Indices, TokenFeatures

__all__ = [
    "Indices",
    "Matrix",
    "TokenFeatures",
    "check_head",
    "compress",
    "extract_features",
    "logits_in_blocks",
]
