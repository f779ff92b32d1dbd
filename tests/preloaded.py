"""What the ranks of the tests need, imported once in the process that they are forked from."""

import gc
import os

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import functorch.compile  # DeepSpeed and torch import these when they are first used
import networkx
import torch.distributed.checkpoint
import torch.distributed.tensor
import transformers.models.bert.modeling_bert
import transformers.models.gpt2.modeling_gpt2

import pretrain.train

gc.freeze()  # what is here stays: no collection has to look at it again
