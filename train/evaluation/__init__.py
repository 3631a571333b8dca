"""How good a model is: `instructsam eval BENCHMARK`.

metrics             masks against masks: pooled AP, gIoU, cIoU, no-target accuracy
report              the figures as JSON and as a table
tabletop            a benchmark: its questions, how a model is asked, its command line
command             `instructsam eval`: a subcommand a benchmark
"""
