"""Results tables as in papers: comparisons of arms, their rendering, and checks of tables that were written earlier.

`table` compares the arms of one study, with the tests of `verdicts` and words in the claim's column; `comparison` puts studies and metrics together as a
request asks. A table is data; `render` turns it into text in every format. `shot_rules` recomputes regions from stored
predictions, `published` holds the papers' numbers, `marks` the rules for ± and bold, `provenance` names the trials behind a
cell, `check` reads a written table back.
"""
