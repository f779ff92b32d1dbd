"""`python -m pretrain.report`: runs beside each other, as a page, a table or plots."""
