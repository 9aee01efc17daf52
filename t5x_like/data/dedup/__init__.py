"""Steps that compare documents with each other: each removes what is there more than once, in its own sense."""
