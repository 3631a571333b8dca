"""`instructsam train ablate PLAN`: the effect of each component of the paper (section 4).

variants            what each variant lacks, and the differences that the paper reports
plan                recipes, seeds and questions: the YAML file
study               trains and measures whatever is missing
report              the figures of all seeds as a table
command             the command line
"""
