"""The service over HTTP, with the worker in a thread: what it answers, and each refusal."""

import socket
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from helpers.conformance import FOLDER
from helpers.serve import png, serving
from PIL import Image

import dlf
from dlf.runtime.errors import BackendFailedError
from dlf.runtime.serve.worker import Failed


@pytest.fixture(scope="module")
def codec(toy_bundle):
    return dlf.Codec(toy_bundle, "openvino", 1, device="cpu")


def pixels(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image)


def test_encode_and_decode_are_those_of_the_codec(site, codec):
    image = png(300, 40)
    coded = site.post("/encode", image)
    assert (coded.status, coded.headers["content-type"]) == (200, "image/x-dlf")
    assert coded.body == codec.encode(BytesIO(image))
    decoded = site.post("/decode", coded.body)
    assert (decoded.status, decoded.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(pixels(decoded.body), codec.decode(coded.body))
    start = coded.body[: len(coded.body) - dlf.info(coded.body).bytes.detail]
    preview = site.post("/decode?preview=1", start)
    assert np.array_equal(pixels(preview.body), codec.decode(start, detail=False))
    for name, kind in (("jpg", "JPEG"), ("webp", "WEBP")):
        with Image.open(BytesIO(site.post(f"/decode?format={name}", coded.body).body)) as picture:
            assert (picture.format, picture.size) == (kind, (40, 300))


def test_info_tells_of_files_and_of_the_model(site, codec):
    data = codec.encode(np.zeros((3, 5, 3), np.uint8))
    assert site.post("/info", data).json == dlf.info(data).to_dict()
    about = site.ask("GET", "/info").json
    assert about["model"] == "toy" and about["limits"] == {"max_pixels": 1 << 20, "max_side": 1 << 11, "max_body": 1 << 20}


def test_health_readiness_and_page(site):
    assert site.ask("GET", "/health").status == site.ask("GET", "/ready").status == 200
    page = site.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html") and b"page.js" in page.body
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert site.ask("GET", "/page.js").status == site.ask("GET", "/page.css").status == 200


def test_not_ready_is_told(site):
    site.gate.clear()
    try:
        answer = site.ask("GET", "/ready")
        assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, "NotReady", "5")
        assert site.ask("GET", "/health").status == 200
    finally:
        site.gate.set()


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/encode", b"", "ImageError"),
        ("/encode", b"no picture", "ImageError"),
        ("/encode", png(1, 2100), "SizeLimitError"),
        ("/encode", png(100, 100)[:-40], "ImageError"),
        ("/decode", b"", "TruncatedError"),
        ("/decode", png(4, 4), "NotDLFError"),
        ("/decode?preview=1", b"\xdf", "TruncatedError"),
        ("/info", b"no file", "NotDLFError"),
        ("/decode?format=gif", b"", "InvalidArgumentError"),
        ("/decode?preview=yes", b"", "InvalidArgumentError"),
    ],
)
def test_what_is_wrong_with_a_body_has_the_name_of_its_error(site, path, body, name):
    answer = site.post(path, body)
    assert (answer.status, answer.error) == (400, name) and answer.json["message"]


def test_a_damaged_file_and_one_of_another_model(site, codec):
    data = codec.encode(np.zeros((3, 5, 3), np.uint8))
    assert site.post("/decode", data[:-1] + bytes([data[-1] ^ 1])).error == "ChecksumError"
    assert site.post("/decode", (FOLDER / "1x1.dlf").read_bytes()).error == "WrongModelError"


def test_other_paths_and_methods(site):
    assert (site.ask("GET", "/nothing").status, site.ask("GET", "/nothing").error) == (404, "NotFound")
    answer = site.ask("GET", "/encode")
    assert (answer.status, answer.error, answer.headers["allow"]) == (405, "MethodNotAllowed", "POST")


def test_a_large_body_is_refused(toy_bundle):
    with serving(toy_bundle, max_body=100) as site:
        assert site.post("/info", bytes(100)).error == "NotDLFError"
        answer = site.post("/info", bytes(101))
        assert (answer.status, answer.error) == (413, "BodyTooLarge")
        assert site.post("/info", iter([bytes(50)] * 3)).status == 413  # in chunks, without a length


def test_what_is_no_http_is_refused(site):
    endless = b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 17)
    negative = b"POST /encode HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"
    for sent in (b"\0\1\2\3\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", negative, endless):
        with socket.create_connection(("127.0.0.1", site.port), 60) as client:
            client.sendall(sent)
            assert client.recv(100).startswith(b"HTTP/1.1 400")


def test_batches_are_of_one_padded_size_and_a_bad_image_costs_no_other(site):
    bodies = [png(200, 200, 1), png(300, 200, 2), b"no picture", png(100, 250, 3), png(250, 10, 4)]
    site.batches.clear()
    site.gate.clear()
    with ThreadPoolExecutor(9) as clients:
        first = clients.submit(site.post, "/encode", png(20, 20))
        site.begun.acquire()
        while site.begun.acquire(blocking=False):
            pass
        answers = []
        for count, body in enumerate(bodies, 2):
            answers.append(clients.submit(site.post, "/encode", body))
            while site.metric("dlf_images_inside") < count:
                pass
        site.gate.set()
        assert first.result().status == 200
        assert [answer.result().status for answer in answers] == [200, 200, 400, 200, 200]
    assert sorted(count for _, count in site.batches) == [1, 1, 1, 3]


def test_a_full_queue_is_told_with_the_time_to_come_again(site):
    site.gate.clear()
    with ThreadPoolExecutor(6) as clients:
        taken = [clients.submit(site.post, "/encode", png(20, 20)) for _ in range(6)]
        while site.metric("dlf_images_inside") < 6:
            pass
        answer = site.post("/encode", png(20, 20))
        assert (answer.status, answer.error) == (503, "Full") and 1 <= int(answer.headers["retry-after"]) <= 60
        site.gate.set()
        assert all(answer.result().status == 200 for answer in taken)


def test_what_waits_for_a_client_that_left_is_not_done(site):
    site.batches.clear()
    site.gate.clear()
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(site.post, "/encode", png(20, 20))
        while site.metric("dlf_images_inside") < 1:
            pass
        with socket.create_connection(("127.0.0.1", site.port), 60) as client:
            body = png(20, 20)
            client.sendall(b"POST /encode HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            while site.metric("dlf_images_inside") < 2:
                pass
        while site.metric("dlf_images_inside") > 1:
            pass
        site.gate.set()
        assert first.result().status == 200 and site.post("/encode", png(20, 20)).status == 200
    assert [count for _, count in site.batches] == [1, 1]


def test_metrics_count(site):
    def counted():
        return [
            site.metric(line)
            for line in (
                'dlf_requests_total{path="/encode",status="200"}',
                'dlf_request_seconds_count{path="/encode"}',
                'dlf_received_bytes_total{path="/encode"}',
                'dlf_sent_bytes_total{path="/encode"}',
                'dlf_batch_images_sum{operation="encode"}',
                'dlf_stage_seconds_count{operation="encode",stage="wait"}',
                'dlf_stage_seconds_count{operation="encode",stage="analysis"}',
            )
        ]

    image = png(20, 20)
    before = counted()
    coded = site.post("/encode", image).body
    changes = [after - earlier for after, earlier in zip(counted(), before, strict=True)]
    assert changes == [1, 1, len(image), len(coded), 1, 1, 1]


def test_a_slow_body_is_refused(toy_bundle):
    with serving(toy_bundle, body_seconds=0.3) as site, socket.create_connection(("127.0.0.1", site.port), 60) as client:
        client.sendall(b"POST /encode HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nslow")
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_too_many_bytes_at_a_time_are_refused(toy_bundle):
    with serving(toy_bundle, queue=1, max_body=100) as site:
        with socket.create_connection(("127.0.0.1", site.port), 60) as client:
            client.sendall(b"POST /encode HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + bytes(99))
            while site.post("/info", bytes(2)).status != 503:  # once those 99 are there
                pass
            assert site.post("/info", bytes(2)).headers["retry-after"] == "1"
        while site.post("/info", bytes(2)).status == 503:  # until they are gone with their client
            pass


class Broken:
    """A worker that fails as it is told by the body."""

    def run(self, order, bodies):
        if bodies[0] == b"lost":
            raise OSError("the process is gone")
        return [Failed.of(BackendFailedError("stage analysis")) if bodies[0] == b"backend" else 3] * len(bodies), {}


def test_faults_of_the_service_are_its_own(toy_bundle, caplog):
    with serving(toy_bundle, Broken()) as site:
        answer = site.post("/encode", b"backend")
        assert (answer.status, answer.error) == (500, "BackendFailedError")
        answer = site.post("/encode", b"lost")
        assert (answer.status, answer.error) == (500, "WorkerLost") and site.metric("dlf_workers_lost_total") == 2
        answer = site.post("/encode", b"nonsense")
        assert (answer.status, answer.error) == (500, "InternalError") and "Traceback" not in str(answer.body)
        assert "unexpected" in caplog.text
