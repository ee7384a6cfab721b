"""How tools.verify works: looking into every picture, comparing with ImageNet, sorting a flat folder."""
