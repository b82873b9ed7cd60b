import os
import subprocess
import sys

import pytest

# Every look-up of a host is recorded, in all threads; nothing else is changed.
CODE = """
import socket
asked = []
socket.getaddrinfo = lambda host, *_, **__: asked.append(host) or []
import numpy as np, dlf
dlf.Codec(backend={backend!r}, threads=1).encode(np.zeros((8, 8, 3), np.uint8))
print(asked)
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_codec_leaves_nothing_at_home_but_its_own_cache_and_asks_for_no_host(tmp_path, backend):
    pytest.importorskip(backend)
    home = {**os.environ, "HOME": str(tmp_path)}
    home.pop("CI", None)  # where telemetry is off anyway
    home.pop("XDG_CACHE_HOME", None)
    done = subprocess.run([sys.executable, "-c", CODE.format(backend=backend)], env=home, capture_output=True, check=True)
    assert done.stdout == b"[]\n"
    own = tmp_path / ".cache" / "dlf"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and own not in path.parents]
