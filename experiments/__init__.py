"""The laboratory: what is varied and measured, recorded with where each number came from.

`groups` says which networks are trained to be compared, `training` trains them; `catalogue` says
which experiments there are, `tasks` does them, `job` runs and resumes them over images and ranks,
`results` keeps them; `evidence` judges the claims. Imports `utils`, which never imports this.
"""
