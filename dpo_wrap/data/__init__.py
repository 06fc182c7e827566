"""All that a run is made from: model, tokenizer, data, options; refused here, before weights."""
