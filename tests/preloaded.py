"""What the ranks of the tests need, imported and used once in the process that they are forked from."""

import gc
import importlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"

MODULES = """
came.layouts.fsdp2 came.layouts.whole came.layouts.zero12 came.layouts.zero3 came.memory came.rules.came
pretrain.__main__ pretrain.data.prepare pretrain.launch pretrain.train
deepspeed functorch.compile networkx numpy.ma
torch.distributed.checkpoint torch.distributed.fsdp torch.distributed.tensor
transformers.models.bert.modeling_bert transformers.models.gpt2.modeling_gpt2
"""
IMPORTED_LATE = """
deepspeed.module_inject.auto_ep_layer deepspeed.runtime.superoffload.superoffload_stage3 deepspeed.runtime.zero.muon.muon_optimizer
"""
"""When DeepSpeed makes its first engine: with the last comes the whole of torch's compiler."""

for module in (MODULES + IMPORTED_LATE).split():
    importlib.import_module(module)

compose = importlib.import_module("pretrain.config.compose").compose
compose(["data=text", "data.paths=[corpus.txt]", "optimizer.lr=1e-4"])  # Hydra's plug-ins, and what its parser learns as it reads

gc.freeze()  # what is here stays: no collection has to look at it again
