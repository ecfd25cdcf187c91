"""The network: VGG features of an image, computed at once or in tiles."""
