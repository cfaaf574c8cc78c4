"""Files as people have them: checkpoints and zoos of any tool, read into a network's names; nothing is executed."""
