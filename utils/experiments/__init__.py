"""What varies and what is measured: resumable sweeps over models, recorded with where they came
from."""
