"""Weights: reading what others publish, keeping it in one checked format, finding it by name."""

from jaxstyle.weights.conversion import convert as convert
from jaxstyle.weights.file import digest as digest
from jaxstyle.weights.file import read_network as read_network
from jaxstyle.weights.file import save_network as save_network
from jaxstyle.weights.pth import read_pth as read_pth
from jaxstyle.weights.sources import caffe_to_flax as caffe_to_flax
from jaxstyle.weights.sources import gatys_to_flax as gatys_to_flax
from jaxstyle.weights.sources import keras_to_flax as keras_to_flax
from jaxstyle.weights.sources import matconvnet_to_flax as matconvnet_to_flax
from jaxstyle.weights.sources import npz_to_flax as npz_to_flax
from jaxstyle.weights.sources import torchvision_to_flax as torchvision_to_flax
from jaxstyle.weights.store import auto_notice as auto_notice
from jaxstyle.weights.store import cache_folder as cache_folder
from jaxstyle.weights.store import describe as describe
from jaxstyle.weights.store import fetch as fetch
from jaxstyle.weights.store import load_network as load_network
from jaxstyle.weights.store import names as names
from jaxstyle.weights.store import path as path
from jaxstyle.weights.store import verify as verify
