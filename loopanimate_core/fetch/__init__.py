"""Public weights by recipe: downloaded from a Hugging Face hub, checked, and put together."""

from .recipes import Recipe, RecipeFile, find_recipe, load_recipes, source_of

__all__ = ["Recipe", "RecipeFile", "find_recipe", "load_recipes", "source_of"]
