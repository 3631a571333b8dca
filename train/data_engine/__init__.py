"""The Inst2Seg data engine: images to instructions with masks, in five stages and an export (paper, section 4).

A row is one image. Each stage is a function that takes a `rows.Row` and returns it with its own part filled in:

    images -> questions -> objects -> masks -> filter -> export

A stage knows neither files of rows nor other rows: `runners` call it, in any order and any number of times at once. It
adds a `Rejection` for whatever it drops and never removes anything, so that a row tells at its end what became of every
question.
"""
