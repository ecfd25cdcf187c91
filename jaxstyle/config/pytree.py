"""Register `Recipe` as a pytree; modules that transform functions of recipes import this."""

import jax

from jaxstyle.config.recipe import Recipe

jax.tree_util.register_pytree_node(Recipe, Recipe.tree_flatten, Recipe.tree_unflatten)
