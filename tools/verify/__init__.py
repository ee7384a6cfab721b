"""How tools.verify works: comparing a data set with ImageNet, sorting a flat folder."""
