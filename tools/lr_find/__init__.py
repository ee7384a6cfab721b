"""The parts of tools.lr_find: the sweep over learning rates, the rules that read it, and what it leaves behind."""
