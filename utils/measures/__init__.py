"""Numbers with a definition, and the intervals of all of them.

Sparseness, damage by ablation, similarity, receptive fields, frequencies, agreement of attention
maps, decoding and behaviour. Import the modules, not their functions, so that a chapter reads
`sparsity.gini(responses)`.
"""
