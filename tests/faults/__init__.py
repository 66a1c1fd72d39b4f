"""A catalogue of faults: inputs of people who do this job, and what each must be answered with."""
