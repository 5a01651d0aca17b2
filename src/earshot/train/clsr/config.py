"""How large a speech branch is: one dial, and FunASR's Paraformer-large as its highest mark.

In: the name of a size. Out: dimensions, which travel with the weights. Knows nothing of torch or of files.
"""

from __future__ import annotations

from dataclasses import dataclass

from earshot.encoders.cif import TAIL
from earshot.features import STACKED


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """Dimensions of the speech branch of paper B (arXiv 2511.09282): SAN-M encoder, CIF, SAN-M decoder."""

    vocabulary: int = 30_522
    """Tokens of the output layer; those of BERT and BGE unless told otherwise."""
    inputs: int = STACKED
    """Values of an input frame: seven stacked log-mel frames."""
    dim: int = 192
    heads: int = 4
    hidden: int = 768
    """Inner size of the feed-forward layers."""
    encoder_blocks: int = 10
    decoder_blocks: int = 3
    """Those with attention; one block with a feed-forward layer alone follows."""
    kernel: int = 11
    """Frames, or tokens, that an FSMN memory sees at a time."""
    shift: int = 0
    """By how many of them it looks further back than ahead."""
    dropout: float = 0.1
    tail: float = TAIL
    shared: bool = True
    """The vector of a token, which the sampler gives, is its row of the output layer and not of a table of its own."""
    table: int = 0
    """Values of each row of the output layer where that is a frozen table (`earshot.train.clsr.tokens`); 0: learned."""
    sound: int = 0
    """Values of the word encoder's embedding of each token's frames, which the decoder sees too; tokens are then found
    by their ends, some of them BLANK. 0: it does not, and tokens are found by integrate-and-fire."""
    sampling: float = 0.75
    """Share of the wrong tokens of the first pass for which the second pass is given right ones (lambda)."""


SIZES = {
    "laptop": SpeechConfig(),
    "base": SpeechConfig(dim=384, heads=6, hidden=1_536, encoder_blocks=18, decoder_blocks=6),
    "paraformer-large": SpeechConfig(
        vocabulary=8_404, dim=512, hidden=2_048, encoder_blocks=50, decoder_blocks=16, shared=False
    ),
}
"""The size dial; `dataclasses.replace(SIZES[name], vocabulary=...)` for another vocabulary."""
