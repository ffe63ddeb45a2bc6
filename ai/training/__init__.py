"""The training recipes of the node's models: data, stages, checkpoints; everything is remade from a seed."""
