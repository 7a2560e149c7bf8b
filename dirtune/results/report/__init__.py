"""The report of a study: one HTML file with all results, for readers who have neither dirtune nor the results folder.

`content` reads the texts, `figures` draws, and `page` renders both with the template `page.html`, into which it inlines
the style (`page.css`) and the script (`sorting.js`).
"""
