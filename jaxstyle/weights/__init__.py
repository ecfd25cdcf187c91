"""Network weights: published files, the project's checked format, and networks by name."""

from jaxstyle.weights.conversion import convert as convert
from jaxstyle.weights.formats.layouts import gatys_to_flax as gatys_to_flax
from jaxstyle.weights.formats.layouts import keras_to_flax as keras_to_flax
from jaxstyle.weights.formats.layouts import matconvnet_to_flax as matconvnet_to_flax
from jaxstyle.weights.formats.layouts import npz_to_flax as npz_to_flax
from jaxstyle.weights.formats.layouts import torchvision_to_flax as torchvision_to_flax
from jaxstyle.weights.formats.pth import read_pth as read_pth
from jaxstyle.weights.registry import auto_notice as auto_notice
from jaxstyle.weights.registry import cache_folder as cache_folder
from jaxstyle.weights.registry import describe as describe
from jaxstyle.weights.registry import fetch as fetch
from jaxstyle.weights.registry import load_network as load_network
from jaxstyle.weights.registry import names as names
from jaxstyle.weights.registry import path as path
from jaxstyle.weights.registry import verify as verify
from jaxstyle.weights.weight_file import digest as digest
from jaxstyle.weights.weight_file import read_network as read_network
from jaxstyle.weights.weight_file import save_network as save_network
