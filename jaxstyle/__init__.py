"""Neural style transfer by optimisation, as a functional JAX program with L-BFGS on the device."""

from importlib.metadata import version as _version

from jaxstyle.api import stylize as stylize
from jaxstyle.descent import Iterate as Iterate
from jaxstyle.descent import iterates as iterates
from jaxstyle.errors import JaxstyleError as JaxstyleError
from jaxstyle.losses import content_loss as content_loss
from jaxstyle.losses import gram_matrix as gram_matrix
from jaxstyle.losses import style_loss as style_loss
from jaxstyle.masks import Masks as Masks
from jaxstyle.memory import Plan as Plan
from jaxstyle.memory import plan as plan
from jaxstyle.objective import Targets as Targets
from jaxstyle.objective import Terms as Terms
from jaxstyle.objective import make_objective as make_objective
from jaxstyle.optimisers import Optimiser as Optimiser
from jaxstyle.optimisers import lbfgs as lbfgs
from jaxstyle.optimisers import make_optimiser as make_optimiser
from jaxstyle.peers import presets as presets
from jaxstyle.prepare import Job as Job
from jaxstyle.prepare import prepare as prepare
from jaxstyle.recipe import Recipe as Recipe
from jaxstyle.run import Result as Result
from jaxstyle.run import evaluate as evaluate
from jaxstyle.run import finish as finish
from jaxstyle.run import stylize_batch as stylize_batch
from jaxstyle.targets import compute_targets as compute_targets
from jaxstyle.variation import total_variation as total_variation
from jaxstyle.vgg import InputConvention as InputConvention
from jaxstyle.vgg import Network as Network
from jaxstyle.vgg import features as features
from jaxstyle.weights import load_network as load_network

__version__ = _version("jaxstyle")
