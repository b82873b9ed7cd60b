"""`dlf serve`: the codec as a service over HTTP.

One process answers HTTP (`app`, on `server`) and holds what waits, in batches of one padded size (`batches`). Processes that
Ray Serve starts, and starts again when they end, hold a codec each (`worker`, `engine`). Only `engine` knows of Ray, and only
`app` and `server` of HTTP.
"""
