"""What a chapter imports: images, models, hooks, measures, and the parts of a page.

`stimuli` → `models` → `probes` → `measures` → `book`, each of which imports only from those before
it. Installed under the name seeing_sparsely.
"""
