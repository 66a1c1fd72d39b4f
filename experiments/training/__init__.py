"""How the networks of the zoo are trained: recipes, one run, the queue, pilots, transport."""
