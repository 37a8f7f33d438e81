"""The layouts of a checkpoint: tensor names, shapes, and the fields of its configuration."""
