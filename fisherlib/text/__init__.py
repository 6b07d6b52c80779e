"""Stage 1, text: pools of examples, which of their tokens count, and the texts behind the defaults."""

from fisherlib.text.audit import Audit, audit_rows
from fisherlib.text.files import files_in, is_file
from fisherlib.text.heat import heat
from fisherlib.text.masks import Encoded, MaskAudit, encode, encode_row
from fisherlib.text.pools import Pool, load_pool
from fisherlib.text.provenance import check_same_rows, provenance, write_jsonl
from fisherlib.text.rows import SHAPES, SOURCE, as_stored, half_a_character
from fisherlib.text.shapes import SHAPE_NAMES
from fisherlib.text.trainers import TRAINERS, hand_over

__all__ = [
    "SHAPES",
    "SHAPE_NAMES",
    "SOURCE",
    "TRAINERS",
    "Audit",
    "Encoded",
    "MaskAudit",
    "Pool",
    "as_stored",
    "audit_rows",
    "check_same_rows",
    "encode",
    "encode_row",
    "files_in",
    "half_a_character",
    "hand_over",
    "heat",
    "is_file",
    "load_pool",
    "provenance",
    "write_jsonl",
]
