"""The harness: Hydra configuration in, a pretrained and exported BERT or GPT-2 out. Start reading at `pretrain/train.py`."""

__version__ = "0.1.0"
