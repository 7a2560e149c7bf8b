"""The results table of a paper: what is compared, how it is shown, and whether a written one still holds.

`table` compares the arms of one study (`judging` has the tests and verdicts of a column), `comparison` puts studies and metrics together as a request asks. A table is data;
`rendering` shows it in every form (`layout`, `celltext`, `marks` and `footer` say what stands where, `latex`, `webpage` and
`flat` how it is written). `published` holds the papers' numbers, `tracing` names the trials behind a cell, `checking` reads a
written table back.
"""
