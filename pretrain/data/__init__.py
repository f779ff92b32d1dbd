"""Text in, batches out: corpus -> sentences -> tokenizer -> prepared files -> stateless sampler -> masking -> loader."""
