"""Recipes: what is done to pages until they are a corpus (t5x_like.data.corpus.recipe)."""
