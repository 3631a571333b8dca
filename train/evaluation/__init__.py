"""Evaluation: `instructsam eval BENCHMARK` measures how good a model is.

benchmarks   table of the benchmarks: prompts, thresholds and figures
query        queries and outcomes, and the line of results that an outcome becomes
readers      images and queries from the benchmarks' files
tabletop     images and queries from rendered scenes
real         images and queries from photographs that packages ship
running      puts queries to a model, in any number of processes; append-only results on disk
figures      metrics as the authors compute them, COCO's AP, 95 % intervals, summaries, comparisons of runs
reporting    console tables and the HTML report
evaluate     a whole run, from the options of the command line to the printed figures
command      the command line
"""
