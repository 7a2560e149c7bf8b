"""The report of a study: one HTML file with everything that is known of it, for whoever has neither dirtune nor the results.

`content` gathers texts from the store, `figures` draws, `page` puts both into `page.html`, which carries its style
(`page.css`) and its script (`sorting.js`) inside.
"""
