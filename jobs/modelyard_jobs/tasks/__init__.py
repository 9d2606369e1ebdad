"""One module per task: which columns it needs, how a model of it is loaded, how rows become tensors."""
