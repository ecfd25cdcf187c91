"""Make `Recipe` a pytree: imported by what passes one through a transformation of JAX."""

import jax

from jaxstyle.config.recipe import Recipe

jax.tree_util.register_pytree_node(Recipe, Recipe.tree_flatten, Recipe.tree_unflatten)
