"""Numbers with a definition: sparseness of responses, and the geometry of attention.

Import the modules, not their functions, so that a chapter reads `sparsity.gini(responses)`.
"""
