"""Parts of one's own for ra3kit, named in a recipe by import path."""
