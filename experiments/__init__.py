"""The laboratory: what is varied and measured, recorded with where each number came from.

`training` makes the networks and says which are compared; `catalogue` says which experiments there
are, `tasks` does them, `engine` runs and resumes them over images and ranks and keeps the tables;
`evidence` judges the claims. Imports `utils`, which never imports this.
"""
