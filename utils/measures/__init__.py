"""Numbers with a definition: sparseness, damage by ablation, similarity, receptive fields,
frequencies, agreement of attention maps, decoding, behaviour, and the intervals of all of them.

Import the modules, not their functions, so that a chapter reads `sparsity.gini(responses)`.
"""
