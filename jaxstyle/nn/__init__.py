"""The network: VGG features of an image, computed whole or in tiles."""
