"""Does each piece of the paper earn its place? `instructsam train ablate PLAN` (paper, section 4).

variants            what is taken away, and what the paper lost by it
autoregressive      a model without query bank: it writes a mask token for each instance
plan                which recipes, seeds and questions: the YAML file
study               trains and measures whatever is not there yet
report              the figures of all seeds as a table
command             the command line
"""
