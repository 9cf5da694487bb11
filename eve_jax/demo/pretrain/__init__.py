"""A small vision encoder and a small vision tokenizer for the demo, pre-trained on images of its own kind.

WORKDIR/encoder      CLIP's vision tower in its Hugging Face layout, by a contrastive loss (`contrast`)
WORKDIR/tokenizer    the encoder of a VQGAN, by the loss of its reconstructions (`reconstruct`)
WORKDIR/codes/NAME   records of the demo with codes of that tokenizer in place of images
"""
