"""rlkit serve: actions by hand, memory where it belongs, and whatever can be sent to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _module in ("onnx", "uvicorn", "httptools", "msgpack", "websockets", "orjson"):
    pytest.importorskip(_module, reason=f"{_module} is not installed: pip install 'rlkit[export,serve]'")

import msgpack  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from rlkit.cli import serve as verb  # noqa: E402
from rlkit.cli.main import main  # noqa: E402
from rlkit.client import Remote, RemoteError  # noqa: E402
from rlkit.options import ConfigError  # noqa: E402
from rlkit.runtime import Policy  # noqa: E402
from rlkit.serve import onray, openapi  # noqa: E402
from rlkit.serve.app import Application  # noqa: E402
from rlkit.serve.models import Turns  # noqa: E402
from rlkit.serve.protocol import Http  # noqa: E402
from rlkit.serve.wire import Refused, decode, encode  # noqa: E402
from rlkit.space_json import from_json  # noqa: E402
from tests.helpers.served import Client, application, export, serving, until  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")  # the server is silent

ACT, STEP = "/v1/hand/act", "/v1/hand/step"
MSGPACK = "application/msgpack"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("served") / "hand")


@pytest.fixture(scope="module")
def app(folder: Path) -> Application:
    return application(folder, hosts=frozenset({"127.0.0.1"}))


@pytest.fixture(scope="module")
def port(app: Application) -> Iterator[int]:
    with serving(app) as port:
        yield port


def test_sessions_remember_and_others_do_not(port: int) -> None:
    """0.4 + 0.4 + 0.4 is above 1; 0.4 is not."""
    client, told = Client(port), []
    for first in (True, False, False):
        told.append(client.post(ACT, {"obs": [0.4, 9.0], "session": "a", "first": first})[1]["action"])
        assert client.post(ACT, {"obs": [0.4, 9.0]})[1]["action"] == 0
    assert told == [0, 0, 1]
    status, answer = client.post(ACT, {"obs": [float("1e39"), 0], "session": "a"})
    assert status == 422 and answer["error"].startswith("observation holds inf")
    assert client.post(ACT, {"obs": [0.0, 9.0], "session": "a"})[1]["action"] == 1, "as it was"
    assert client.post(ACT, {"obs": [0.4, 9.0], "session": "a", "first": True})[1]["action"] == 0
    status, answer = client.post(ACT, {"obs": [0.4, 9.0], "session": "b"})
    assert status == 404 and "no session 'b' is open here" in answer["error"]
    assert client.post(ACT, {"obs": [0.4], "session": "b", "first": True})[0] == 422
    assert client.post(ACT, {"obs": [0.4, 0.0], "session": "b"})[0] == 404, (
        "one that has not begun is not open"
    )
    drawn = {client.post(ACT, {"obs": [5.0, 0.0], "stochastic": True})[1]["action"] for _ in range(40)}
    assert drawn == {0, 1}


def test_msgpack_and_steps_whose_memory_the_client_holds(port: int) -> None:
    client = Client(port, content_type=MSGPACK)
    obs = {"dtype": "float32", "shape": [2], "data": np.array([1.5, 0], "<f4").tobytes()}
    status, headers, body = client.raw("POST", ACT, msgpack.packb({"obs": obs}))
    assert status == 200 and headers["content-type"] == MSGPACK and msgpack.unpackb(body)["action"] == 1
    inputs = {"obs": [[0.5, 0], [0.5, 0]], "first": [False, True], "memory.0": [[0.75], [0.75]]}
    status, answer = Client(port).post(STEP, {"inputs": inputs})
    assert status == 200 and answer["outputs"] == {"action": [1, 0], "memory_out.0": [[1.25], [0.5]]}
    for wrong, words in (
        ({"first": [True] * 65}, "1 to 64 lanes"),
        ({"obs": [[0.5, 0]]}, "the observations have 1 lanes, and first has 2"),
        ({"memory.0": None}, r"memory.0 has shape \(\)"),
        ({"memory.0": [[0.75]]}, r"this policy remembers \(2, 1\)"),
        ({"memory.1": [[0.75]]}, "the observations of this policy are obs"),
        ({"obs": [["a", "b"]] * 2}, "obs is no array of numbers"),
        ({"obs": [[0.5], [0.5]]}, "reads shape"),
    ):
        status, answer = Client(port).post(STEP, {"inputs": inputs | wrong})
        assert status == 422 and re.search(words, answer["error"]), answer


def test_remote_is_a_policy(port: int, folder: Path) -> None:
    remote, policy = Remote(f"http://127.0.0.1:{port}"), Policy.load(folder, "numpy")
    obs = np.random.default_rng(2).uniform(-1, 1, (15, 3, 2)).astype(np.float32)
    first = np.random.default_rng(3).random((15, 3)) < 0.2
    mine, theirs = None, None
    for t in range(15):
        actions, mine = remote.batch(obs[t], mine, first[t])
        wanted, theirs = policy.batch(obs[t], theirs, first[t])
        assert np.array_equal(actions, wanted) and actions.dtype == wanted.dtype
        assert mine is not None and theirs is not None and np.array_equal(mine[0], theirs[0])
    one, two = remote.session(), policy.session()
    assert [one.act(x) for x in obs[:, 0]] == [two.act(x) for x in obs[:, 0]]
    again = remote.session()
    again.load(one.save())
    assert again.act(obs[0, 0]) == two.act(obs[0, 0])
    action, _ = remote.predict(obs[0], None, np.ones(3, bool), True)
    assert action.tolist() == policy.predict(obs[0], None, np.ones(3, bool), True)[0].tolist()
    with pytest.raises(ValueError, match="observation holds nan"):
        remote(np.full(2, np.nan))
    with pytest.raises(ValueError, match="the state is 0 parts"):
        remote(obs[0, 0], ())
    with pytest.raises(ValueError, match="1 to 64 lanes"):
        remote.batch(np.zeros((65, 2), np.float32))
    with pytest.raises(ValueError, match=r"no model 'other'; it has hand"):
        Remote(f"http://127.0.0.1:{port}", "other")
    with pytest.raises(RemoteError, match="does not answer"):
        Remote("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="no address of a server"):
        Remote("127.0.0.1:8700")


def test_a_websocket_is_a_session(port: int) -> None:
    url = f"ws://127.0.0.1:{port}/v1/hand/session"
    with connect(url) as one, connect(url) as other:
        told = []
        for _ in range(3):
            one.send(json.dumps({"obs": [0.4, 0]}))
            told.append(json.loads(one.recv())["action"])
            other.send(msgpack.packb({"obs": [0.1, 0]}))
            assert msgpack.unpackb(other.recv())["action"] == 0
        assert told == [0, 0, 1]
        for bad in ("nothing", "[]", '{"obs": [0.4]}', '{"obs": [NaN, 0]}', '{"obs": [1, 0], "more": 1}'):
            one.send(bad)
            answer = json.loads(one.recv())
            assert answer["status"] == 422 and answer["error"], "and the session goes on"
        one.send(json.dumps({"obs": [0, 0]}))
        assert json.loads(one.recv())["action"] == 1
        assert 'rlkit_sessions{model="hand"} 3' in Client(port).get("/metrics")[1], "and session a"
        one.send("x" * (2**21 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            one.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
    for wrong, origin, status in (
        (url, "http://evil.example", 403),
        (url.replace("hand", "none"), None, 404),
        (url.replace("session", "act"), None, 404),
    ):
        with pytest.raises(InvalidStatus) as refused:
            connect(wrong, origin=origin)  # type: ignore[arg-type]
        assert refused.value.response.status_code == status
    with connect(url, origin=f"http://127.0.0.1:{port}"):  # type: ignore[arg-type]
        pass


BODIES = [
    ("application/json", body, 422)
    for body in (
        b"", b"nothing", b'{"obs": [NaN, 0]}', b'{"obs": [Infinity, 0]}', b'{"obs": [1e400, 0]}', b'{"obs": "\xff"}',
        b"[" * 10_000, b'{"obs":' * 10_000, b'{"obs": ' + b"[" * 900 + b"]" * 900 + b"}", b"[]", b"null", b"{}",
        b'{"obs": null}', b'{"obs": {}}', b'{"obs": [[1, 2], [3]]}', b'{"obs": ["1", "2"]}', b'{"obs": [1, [2]]}',
        b'{"obs": [1, null]}', b'{"obs": "text"}', b'{"obs": [1, 2], "first": 1}', b'{"obs": [1, 2], "session": ""}',
        b'{"obs": [1, 2], "session": 3}', b'{"obs": [1, 2], "session": null}',
        b'{"obs": [1e300, -1e300]}', b'{"obs": [1, 2], "stochastic": "yes"}', b'{"obs": [1, 2], "other": 3}',
        b'{"obs": [' + b'"' + b"a" * 100_000 + b'"' + b',"b"' * 100_000 + b"]}",  # 40 GB as an array of texts
    )
] + [
    (MSGPACK, body, 422)
    for body in (
        b"", b"\x91" * 10_000, b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x81\x01\x01", b"\xc7\x0c\xff" + b"\xff" * 12,
        msgpack.packb({b"obs": [1, 2]}), msgpack.packb({"obs": b"12345678"}), msgpack.packb({"obs": [b"1", b"2"]}),
        msgpack.packb({"obs": [float("nan"), 0]}), msgpack.packb({"obs": msgpack.ExtType(1, b"x")}),
        msgpack.packb({"obs": {"dtype": "object", "shape": [2], "data": b"x" * 16}}),
        msgpack.packb({"obs": {"dtype": "float32", "shape": [2], "data": b"x" * 7}}),
        msgpack.packb({"obs": {"dtype": "float32", "shape": [-2, -1], "data": b"x" * 8}}),
        msgpack.packb({"obs": {"dtype": [], "shape": {}, "data": b"x" * 8}}),
        msgpack.packb({"obs": {"dtype": "float32", "shape": [2**40, 2**40, 0], "data": b""}}),
    )
] + [
    ("text/plain", b'{"obs": [1, 2]}', 415), ("", b'{"obs": [1, 2]}', 415),
    ("application/json", b" " * (3 * 2**20), 413),
]  # fmt: skip


def test_bad_bodies_are_refused_in_one_line(port: int) -> None:
    for path in (ACT, STEP):
        for kind, body, wanted in BODIES:
            status, _, answer = Client(port).raw("POST", path, body, content_type=kind)
            error = json.loads(answer)["error"]
            assert status == wanted and "\n" not in error and len(error) < 600, (
                path,
                kind,
                body[:50],
                status,
                error,
            )
    chunks = (b"x" * 2**16 for _ in range(48))
    assert Client(port).raw("POST", ACT, chunks, content_type="application/json")[0] == 413
    assert Client(port).post(ACT, {"obs": [2, 0]})[1]["action"] == 1


def test_pages(port: int, app: Application) -> None:
    client = Client(port)
    assert client.get("/live") == (200, {"status": "live"}) and client.get("/ready") == (
        200,
        {"status": "ready"},
    )
    (model,) = client.get("/v1/models")[1]["models"]
    assert model["name"] == "hand" and model["policy"]["memory"][0]["shape"] == [1]
    for method, path, status in (
        ("GET", "/", 404), ("GET", "/v1/none/act", 404), ("GET", ACT, 405), ("POST", "/live", 405),
        ("PUT", ACT, 405), ("GET", "/v1/hand/session", 426), ("GET", "/v1/hand/act/", 404), ("HEAD", "/live", 200),
    ):  # fmt: skip
        assert client.raw(method, path)[0] == status, path
    assert client.raw("GET", "/live", host="evil.example")[0] == 421
    app.stopping = True
    status, headers, _ = client.raw("GET", "/ready")
    app.stopping = False
    assert status == 503 and headers["retry-after"] == "1"


def test_metrics_count_by_hand(folder: Path) -> None:
    """Recorded were numbers in [-1, 1]: 5 and 7 lie outside."""
    with serving(application(folder)) as port:
        client = Client(port)
        for obs in ([0.1, 0.1], [5.0, 0.1], [7.0, 0.1]):
            client.post(ACT, {"obs": obs})
        client.post(ACT, {"obs": []})
        _, headers, body = client.raw("GET", "/metrics")
    text = body.decode()
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    for line in (
        'rlkit_requests_total{model="hand",route="act",status="200"} 3',
        'rlkit_requests_total{model="hand",route="act",status="422"} 1',
        'rlkit_decisions_total{model="hand"} 3',
        'rlkit_input_outside_total{model="hand",input="obs[0]"} 2',
        'rlkit_input_outside_total{model="hand",input="obs[1]"} 0',
        'rlkit_action_total{model="hand",number="0",value="0"} 1',
        'rlkit_action_total{model="hand",number="0",value="1"} 2',
        'rlkit_latency_seconds_count{model="hand"} 3',
    ):
        assert line in text.splitlines(), line
    assert text.endswith("# EOF\n")


def test_the_description_fits_the_spaces(port: int) -> None:
    _, found = Client(port).get("/openapi.json")
    body = found["paths"][ACT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    obs = body["properties"]["obs"]
    assert obs["items"]["type"] == "number" and (obs["minItems"], obs["maxItems"]) == (2, 2)
    steps = found["paths"][STEP]["post"]["requestBody"]["content"]["application/json"]["schema"]
    inputs = steps["properties"]["inputs"]
    assert inputs["required"] == ["first", "obs"] and inputs["properties"]["memory.0"]["maxItems"] == 64
    space = {
        "kind": "Dict",
        "entries": [
            ["image", {"kind": "Box", "shape": [2, 3], "dtype": "uint8", "low": 0, "high": 255}],
            ["gear", {"kind": "Discrete", "n": 3, "start": -1}],
            ["bits", {"kind": "MultiBinary", "n": 4}],
            ["arms", {"kind": "MultiDiscrete", "nvec": [2, 5], "start": [0, 1]}],
        ],
    }
    shown = openapi.schema(from_json(space))
    assert shown["required"] == ["image", "gear", "bits", "arms"]
    assert shown["properties"]["gear"] == {"type": "integer", "minimum": -1, "maximum": 1}
    assert shown["properties"]["image"]["items"]["items"] == {"type": "integer", "minimum": 0, "maximum": 255}
    assert shown["properties"]["arms"]["items"]["maximum"] == 5


def test_a_token_is_asked_for(folder: Path) -> None:
    with serving(application(folder, token="0123456789abcdef")) as port:
        client = Client(port)
        assert client.post(ACT, {"obs": [2, 0]})[0] == 401 and client.get("/metrics")[0] == 401
        assert client.get("/live")[0] == 200
        for given in ("Bearer wrong", "Bearer \xe4", "0123456789abcde", "Bearer "):
            assert client.raw("GET", "/v1/models", authorization=given)[0] == 401
        assert client.raw("GET", "/v1/models", authorization="Bearer 0123456789abcdef")[0] == 200
        assert Remote(f"http://127.0.0.1:{port}", token="0123456789abcdef")([2, 0])[0] == 1
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{port}/v1/hand/session")


def test_sessions_are_bounded_and_idle_ones_closed(folder: Path) -> None:
    app = application(folder, sessions=2)
    with serving(app) as port:
        client = Client(port)
        for name in ("a", "b", "a"):
            assert client.post(ACT, {"obs": [2, 0], "session": name, "first": True})[0] == 200
        body = json.dumps({"obs": [2, 0], "session": "c", "first": True})
        status, headers, _ = client.raw("POST", ACT, body, content_type="application/json")
        assert status == 429 and 590 <= int(headers["retry-after"]) <= 601
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}/v1/hand/session")
        assert refused.value.response.status_code == 429
        app.sessions.idle = 0.05
        time.sleep(0.1)
        with connect(f"ws://127.0.0.1:{port}/v1/hand/session") as idle:
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv(timeout=10)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        assert client.raw("POST", ACT, body, content_type="application/json")[0] == 200
        assert client.post(ACT, {"obs": [2, 0], "session": "a"})[0] == 404


def test_a_turn_takes_what_waits_and_spoils_nobody_s_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = application(folder).models["hand"]
    policy, calls = model.version.policy, []
    inner = policy.step

    def step(rows: Any, first: Any, state: Any, greedy: bool) -> Any:
        calls.append(len(first))
        if (rows[""] == 13).any():
            raise RuntimeError("an index out of range")
        return inner(rows, first, state, greedy)

    monkeypatch.setattr(policy, "step", step)

    async def ask() -> list[Any]:
        turns = Turns(4, 8)

        async def one(x: float) -> Any:
            rows, memory = {"": np.full((1, 2), x, np.float32)}, (np.full((1, 1), 0.5, np.float32),)
            return await turns.step(model, model.version, rows, np.array([False]), memory, True)

        numbers = (0.1, 0.6, 2, 3, 0.2, 13, 0.3, 0.9, 4, 5)
        return await asyncio.gather(*map(one, numbers), return_exceptions=True)

    found = asyncio.run(ask())
    assert calls == [4, 4, 1, 1, 1, 1], "two turns; of the second every request alone"
    assert [int(each[0][0]) for place, each in enumerate(found[:8]) if place != 5] == [0, 1, 1, 1, 0, 0, 1]
    assert np.isclose(found[6][1][0], 0.8).all()
    assert isinstance(found[5], Refused) and found[5].status == 422
    assert [each.status for each in found[8:]] == [429, 429]


def test_slow_and_greedy_connections_end(folder: Path) -> None:
    class Impatient(Http):
        deadline = 0.4

    with serving(application(folder), Impatient) as port:
        opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        opened[1].sendall(b"POST /v1/hand/act HTTP/1.1\r\nHost: x\r\n")
        opened[2].sendall(b"POST /v1/hand/act HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        opened[2].sendall(b"Content-Length: 100\r\n\r\n{")
        opened[3].sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\nGET /live HTTP/1.1\r\n")
        for place, each in enumerate(opened):
            each.settimeout(10)
            data = b""
            while more := each.recv(4096):
                data += more
            assert data.count(b"200 OK") == (place == 3) and data.count(b"408 Request Timeout") == (
                place != 2
            )
        kept = Client(port)
        for _ in range(3):
            time.sleep(0.25)
            assert kept.get("/live")[0] == 200, "what is complete has no deadline"
        for flood in (
            b"GET /live HTTP/1.1\r\nX: " + b"x" * 400_000,
            b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000,
        ):
            with socket.create_connection(("127.0.0.1", port)) as each:
                each.settimeout(10)
                data = b"-"
                try:
                    each.sendall(flood)
                    while more := each.recv(2**16):
                        data += more
                except ConnectionError:
                    pass
                assert data.count(b"200 OK") <= 66


def test_another_folder_is_taken_over_by_new_episodes(tmp_path: Path) -> None:
    """A real process: SIGHUP, a damaged folder, SIGTERM; and torch is not in it."""
    folder = export(tmp_path / "hand")
    code = (
        "import atexit, sys; atexit.register(lambda: print(sorted({'torch', 'gymnasium', 'ray', 'onnx'} & set(sys."
        "modules)))); from rlkit.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        port = int(re.search(r":(\d+)/v1/hand \(step 1, ", line)[1])  # type: ignore[index]
        client, remote = Client(port), Remote(f"http://127.0.0.1:{port}")
        assert client.post(ACT, {"obs": [0.4, 0], "session": "a", "first": True})[1]["action"] == 0
        action, state = remote([0.4, 0])
        assert action == 0 and state is not None

        def version() -> Any:
            return client.get("/v1/models")[1]["models"][0]["version"]

        before = version()
        export(folder, threshold=0.1, step=2)
        until(lambda: version() != before)
        answer = client.post(ACT, {"obs": [0.4, 0], "session": "a"})[1]
        assert answer["action"] == 0 and answer["version"] == before, "an episode keeps its version"
        assert remote([0.4, 0], state)[0] == 0 and remote([0.4, 0])[0] == 1
        answer = client.post(ACT, {"obs": [0.4, 0], "session": "a", "first": True})[1]
        assert answer["action"] == 1 and answer["version"] != before
        status, answer = client.post(
            STEP, {"inputs": {"obs": [[0, 0]], "first": [False], "memory.0": [[0]]}, "version": "x"}
        )
        assert status == 409 and "not served any more" in answer["error"]
        assert "reloaded:    hand: step 2 (version " in process.stderr.readline()
        export(folder, threshold=0.2, recorded=-5.0)
        assert "refused:     hand: " in process.stderr.readline()
        export(folder, action={"kind": "Discrete", "n": 2, "start": 1})
        assert "has another action" in process.stderr.readline()
        (folder / "policy.onnx").write_bytes(b"damaged")
        process.send_signal(signal.SIGHUP)
        assert "its SHA-256 is not the manifest's" in process.stderr.readline()
        assert client.post(ACT, {"obs": [0.4, 0]})[1]["action"] == 1, "the old one serves on"
        lost, answered = in_full_load(port, process)
        assert not lost and answered > 20
        assert process.wait(20) == 0 and process.stdout.read() == "stopped\n[]\n"
    finally:
        process.kill()
        process.wait()


def in_full_load(port: int, process: subprocess.Popen[str]) -> tuple[list[str], int]:
    """Four clients ask on kept connections while the process is told to end: what was lost, how many answers came."""
    lost: list[str] = []
    answered = [0] * 4

    def ask(place: int) -> None:
        client = Client(port)
        while True:
            try:
                client.connection.connect()
            except OSError:
                return  # nobody listens any more
            while True:
                try:
                    body = json.dumps({"obs": [2, 0]})
                    status, headers, _ = client.raw("POST", ACT, body, content_type="application/json")
                except Exception as error:
                    lost.append(repr(error))
                    return
                answered[place] += status == 200
                if headers.get("connection") == "close":
                    break

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: min(answered) > 5)
    process.terminate()
    for thread in threads:
        thread.join(20)
    return lost, sum(answered)


def test_the_command_says_what_is_wrong(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> tuple[int, str]:
        code = main(["serve", *words])
        return code, capsys.readouterr().err

    (tmp_path / "short").write_text("abc\n")
    (tmp_path / "run").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        for words, code, text in (
            ([str(folder), "--host", "0.0.0.0"], 2, "other machines reach it; give --token-file"),
            ([str(folder), "--token-file", str(tmp_path / "short")], 2, "one word of at least 16 characters"),
            ([str(folder), "--token-file", str(tmp_path / "none")], 2, "No such file"),
            ([str(folder), "--port", number], 2, "Address already in use; choose another port"),
            ([str(folder), "--port", "70000"], 2, "choose another port"),
            ([str(folder), str(folder)], 2, "a model hand is there already"),
            ([str(tmp_path / "run")], 2, "is no run and no exported folder"),
            ([str(folder), "--max-batch", "0"], 2, "a whole number of at least 1"),
            ([], 2, "required: FOLDER"),
        ):
            found, told = said(*words)
            assert found == code and text in told and told.count("\n") == 1, (words, told)
    bad = export(tmp_path / "bad", recorded=-5.0)
    code, told = said(str(bad), "--port", "0")
    assert code == 1 and "does not do what its agent did: step 0, output action" in told
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: None if name == "fastapi" else name)
    assert said(str(folder), "--ray") == (2, 'rlkit: --ray needs Ray Serve: pip install "rlkit[serve-ray]"\n')
    monkeypatch.undo()
    monkeypatch.setattr(verb, "NEEDED", ("no_such_package",))
    assert said(str(folder)) == (2, 'rlkit: rlkit serve needs no_such_package: pip install "rlkit[serve]"\n')


def test_what_fails_in_the_server_stays_there_and_is_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = application(folder)
    with serving(app) as port:
        remote, inner, calls = Remote(f"http://127.0.0.1:{port}"), app.turns.step, []

        async def step(*given: Any) -> Any:
            calls.append(1)
            if len(calls) < 3:
                raise RuntimeError("a secret of the server\nand a second line")
            return await inner(*given)

        monkeypatch.setattr(app.turns, "step", step)
        status, answer = Client(port).post(ACT, {"obs": [2, 0]})
        assert status == 500 and answer["error"] == "the server failed: its log says why"
        assert remote([2, 0])[0] == 1 and len(calls) == 3
    told = capsys.readouterr().err
    assert told.count("RuntimeError: a secret of the server") == 2 and told.count("\n") == 2


def test_a_run_is_exported_first_where_it_is_not_yet(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = tmp_path / "run", []
    (run / "best").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "best" / "manifest.json").write_bytes(b"{}")

    def exported(words: list[str], env: dict[str, str], check: bool) -> Any:
        calls.append(words[-2:])
        digest = hashlib.sha256(b"{}").hexdigest()
        export(run / "export", checkpoint=digest)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(verb.subprocess, "run", exported)
    for _ in range(2):
        assert verb._folders([str(run), f"other={folder}"]) == {"run": run / "export", "other": folder}
    assert calls == [["export", str(run)]], "the second time it is there"
    (run / "best" / "manifest.json").write_bytes(b"{ }")
    monkeypatch.setattr(verb.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(ConfigError, match="was not exported; rlkit export "):
        verb._folders([str(run)])


def test_what_ray_serve_is_told_and_what_its_replicas_refuse(folder: Path) -> None:
    words = ["num_replicas=2", 'autoscaling_config={"min_replicas": 1}', "name=a=b"]
    assert onray.options_of(words) == {
        "num_replicas": 2,
        "autoscaling_config": {"min_replicas": 1},
        "name": "a=b",
    }
    with pytest.raises(ConfigError, match="--ray-option 2: KEY=VALUE"):
        onray.options_of(["2"])
    replica = onray.Replica({"hand": str(folder)}, {"batch": 8})
    with serving(replica) as port:  # type: ignore[arg-type]
        client = Client(port)
        assert client.post(ACT, {"obs": [2, 0]})[1]["action"] == 1
        status, answer = client.post(ACT, {"obs": [2, 0], "session": "a", "first": True})
        assert status == 422 and "use a websocket, or /step" in answer["error"]
        with connect(f"ws://127.0.0.1:{port}/v1/hand/session") as one:
            one.send('{"obs": [2, 0]}')
            assert json.loads(one.recv())["action"] == 1


def test_arrays_travel_as_they_are() -> None:
    sent = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3).T, "b": np.float32(0.1), "c": np.zeros((0, 2))}
    found = decode(MSGPACK, encode(MSGPACK, sent))
    assert found["a"].tolist() == [[0, 3], [1, 4], [2, 5]] and found["a"].dtype == np.uint8
    assert found["b"] == sent["b"] and found["c"].shape == (0, 2)
    shown = json.loads(encode("application/json", sent))
    assert shown["a"] == [[0, 3], [1, 4], [2, 5]] and shown["c"] == []
