"""Read-only pages of a catalog for browsers: made on the server, without any script from elsewhere.

server.py          listens, and says who may read
guard.py           Host, token, methods and headers of every request
app.py             addresses
catalog_view.py    what pages read: through copies.py, with kept.py
…_page.py          what one page shows
rendering.py       HTML, from templates/ and static/
"""
