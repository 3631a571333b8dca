"""How good a model is: `instructsam eval BENCHMARK`.

benchmarks   the table: what each benchmark asks, counts and reports
readers      the benchmarks' files as scenes
tabletop     scenes drawn anew
sources      where scenes come from: files, or the tabletop world
query        what is asked and what came back; a line of the results
asking       a model is asked everything about an image
run_folder   the results on disk, which only grow
running      from whatever is on disk to a whole run, in any number of processes
watching     a bar with the figures so far
metrics      masks against masks, as the authors compare them
coco_ap      COCO's AP
collection   many values are read without Python looking for cycles among them
intervals    95 % of each figure
summary      the figures of all and of every group
report       the figures as a table
page         the figures, curves and pictures as a page
compare      two runs, sample by sample
command      the command line
"""
