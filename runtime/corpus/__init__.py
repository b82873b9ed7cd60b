"""Corpora: encode, decode and verify whole trees of images on a Ray cluster, on any storage that pyarrow or fsspec knows.

`storage` reads and writes, `rows` is the table of what is there, `plan` finds what is to do, `worker` does a chunk of it with
one open codec, `engine` keeps workers on a cluster busy, `report` counts. Needs the extra `dlf[ray]`, which importing this does
not import.
"""
