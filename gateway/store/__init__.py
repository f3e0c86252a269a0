"""All SQL, and nothing but SQL: rows in, nouns out. It knows no rules: those are the control plane's and the intake's.

A function takes a connection when it is one step of a larger change, and a `Database` when it is a transaction of its
own. JSON columns travel as text (`json.dumps` in, `json.loads` out): asyncpg's COPY is binary and takes no text
codecs.
"""
