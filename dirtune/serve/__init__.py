"""Web view of a results root: `dirtune serve`.

Read-only: the pages are made from the records at each request, as tables, figures and reports are, by the same functions.
Nothing runs in the browser but sorting and the refresh of the progress.

    pages    what each page shows, as plain values
    app      routes, the token, headers, errors
    server   a server on this machine
"""
