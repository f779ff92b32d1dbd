"""`python -m pretrain.finetune`: a pretrained model on the tasks of GLUE and on SQuAD v1.1."""
