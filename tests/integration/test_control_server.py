"""The control socket against everybody who may come: each claim is about work that stays bounded, and about others who are still answered.

Where time or order matters the test itself is the loop and calls `serve`.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import pytest
from eventually import eventually
from pretended import ControlLoop, Pretended, listening, server_of

from horizon import control
from horizon.control import (
    PROTOCOL,
    REPLY_MAX_BYTES,
    REQUEST_MAX_BYTES,
    Done,
    Down,
    Dump,
    DumpReply,
    Envelope,
    NoSupervisor,
    Refused,
    Reload,
    Reply,
    Request,
    RequestRefused,
    Status,
    StatusReply,
    Stop,
    ask,
    connect,
)
from horizon.errors import ConfigError, ExitCode
from supervisor.control import CLIENTS_MAX, SILENT_MAX_S, STEPS_MAX, ControlServer, Peer

STATUS = msgspec.msgpack.encode(Envelope(PROTOCOL, Status()))


def answer_done(request: Request, peer: Peer) -> Reply:
    return Done([type(request).__name__])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def server(path: Path) -> Iterator[ControlServer]:
    server = server_of(path, answer_done)
    yield server
    server.close()


@pytest.fixture
def clients() -> Iterator[Callable[[Path], socket.socket]]:
    """Connections that are closed at the end of the test, however many they are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with ExitStack() as stack:

        def client(path: Path) -> socket.socket:
            made = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connect(made, path)
            made.settimeout(10)
            return made

        yield client
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def reply_of(client: socket.socket) -> Reply | None:
    """None: hung up on."""
    with suppress(ConnectionResetError):
        data = client.recv(REPLY_MAX_BYTES)
        return msgspec.msgpack.decode(data, type=Reply) if data else None  # type: ignore[arg-type]
    return None


Client = Callable[[Path], socket.socket]


# ---- the socket


def test_the_socket_is_for_its_user_and_group_and_gone_at_the_end(path: Path) -> None:
    before = os.umask(0o077)
    try:
        server = server_of(path, answer_done)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    server.close()
    assert not path.exists()


def test_the_socket_of_a_dead_supervisor_is_replaced(path: Path, clients: Client) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    server = server_of(path, answer_done)
    client = clients(path)
    client.send(STATUS)
    server.serve(0.0)
    assert reply_of(client) == Done(["Status"])
    server.close()


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_the_socket_of_somebody_who_listens_is_left_alone(path: Path, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigError, match="another process listens"):
            server_of(path, answer_done)
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("notes")
    with pytest.raises(ConfigError, match="no socket"):
        server_of(path, answer_done)
    assert path.read_text() == "notes"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing/control\.sock cannot be made: No such file"):
        server_of(tmp_path / "missing" / "control.sock", answer_done)


def test_a_socket_that_was_removed_is_made_again(path: Path, server: ControlServer, clients: Client) -> None:
    server.serve(100.0)
    path.unlink()
    server.serve(110.0)
    client = clients(path)
    client.send(STATUS)
    server.serve(110.1)
    assert reply_of(client) == Done(["Status"])


def test_a_socket_whose_name_came_to_mean_another_is_made_again(path: Path, server: ControlServer, clients: Client) -> None:
    server.serve(100.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(f"{path}.other")
    path.with_name(f"{path.name}.other").rename(path)
    server.serve(110.0)
    client = clients(path)
    client.send(STATUS)
    server.serve(110.1)
    assert reply_of(client) == Done(["Status"])


def test_a_name_that_cannot_be_looked_up_ends_nothing(
    path: Path, server: ControlServer, clients: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    client = clients(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", refuse)
        patch.setattr(Path, "stat", refuse)
        server.serve(100.0)
    client.send(STATUS)
    server.serve(101.0)
    assert reply_of(client) == Done(["Status"])


def test_a_path_longer_than_a_sockets_name_may_be_works(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    with ControlLoop(ControlServer(folder / "control.sock", answer_done)):
        assert ask(folder / "control.sock", Status()) == Done(["Status"])


def test_nobody_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoSupervisor, match="`horizon up` starts one"):
        ask(tmp_path / "control.sock", Status())


def test_a_supervisor_that_does_not_answer_is_waited_for_only_so_long(path: Path, server: ControlServer) -> None:
    with pytest.raises(NoSupervisor, match=r"within 0\.05 s"):
        ask(path, Status(), timeout_s=0.05)


# ---- what is no request


def _of_protocol(number: int) -> bytes:
    return msgspec.msgpack.encode({"protocol": number, "request": {"type": "dance", "partner": 3}})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (STATUS[: len(STATUS) // 2], "not a request"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a request"),
        (bytes(range(256)) * 8, "not a request"),
        (msgspec.msgpack.encode({"protocol": PROTOCOL, "request": {"type": "__class__"}}), "not a request"),
        (msgspec.msgpack.encode({"protocol": PROTOCOL, "request": {"type": "stop", "names": "calm"}}), "not a request"),
        (b"\x81" * REQUEST_MAX_BYTES, "not a request"),
        (b"x" * (REQUEST_MAX_BYTES + 1), "at most"),
        (_of_protocol(PROTOCOL + 1), f"protocol {PROTOCOL}, the command {PROTOCOL + 1}"),
    ],
    ids=["half", "http", "noise", "unknown verb", "wrong type", "nested", "oversized", "newer"],
)
def test_what_is_no_request_is_refused_in_a_sentence(
    path: Path, server: ControlServer, clients: Client, data: bytes, reason: str
) -> None:
    client = clients(path)
    client.send(data)
    server.serve(0.0)
    reply = reply_of(client)
    assert isinstance(reply, Refused)
    assert reason in reply.reason
    assert reply.exit_code == ExitCode.USAGE
    assert reply_of(client) is None, "hung up after it"


def test_descriptors_that_a_client_sends_along_are_not_kept(path: Path, server: ControlServer, clients: Client) -> None:
    held = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        client = clients(path)
        socket.send_fds(client, [STATUS], [0, 1, 2])
        server.serve(0.0)
        client.close()
    server.serve(0.0)
    assert len(os.listdir("/proc/self/fd")) == held


# ---- who comes and does not ask, or does not listen


def test_one_who_says_nothing_is_let_go(path: Path, server: ControlServer, clients: Client) -> None:
    client = clients(path)
    server.serve(100.0)
    server.serve(100.0 + SILENT_MAX_S - 0.1)
    client.send(STATUS)
    server.serve(100.0 + SILENT_MAX_S - 0.05)
    assert reply_of(client) == Done(["Status"])

    silent = clients(path)
    server.serve(200.0)
    server.serve(200.0 + SILENT_MAX_S)
    assert reply_of(silent) is None


def test_one_call_takes_so_many_steps_and_the_next_goes_on(path: Path, server: ControlServer, clients: Client) -> None:
    asking = [clients(path) for _ in range(100)]
    for client in asking:
        client.send(STATUS)
    steps = [server.serve(0.0) for _ in range(5)]
    assert max(steps) <= STEPS_MAX
    assert [reply_of(client) for client in asking] == [Done(["Status"])] * 100


def test_a_hundred_who_only_stay_keep_nobody_out(path: Path, server: ControlServer, clients: Client) -> None:
    idle = [clients(path) for _ in range(100)]
    for turn in range(10):
        assert server.serve(turn / 10) <= STEPS_MAX
    assert reply_of(idle[0]) is None, "the oldest had to make room"
    client = clients(path)
    client.send(STATUS)
    server.serve(1.0)
    assert reply_of(client) == Done(["Status"])


def test_who_was_pushed_out_before_it_had_spoken_asks_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd may come between the connection and the request; a command must not fail for that, nor be done twice."""
    asked: list[Request] = []

    def answer(request: Request, peer: Peer) -> Reply:
        asked.append(request)
        return Done()

    def crowd(made: socket.socket, place: Path) -> None:
        connect(made, place)
        if len(others) < 2 * CLIENTS_MAX:
            while len(others) < 2 * CLIENTS_MAX:
                others.append(stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)))
                connect(others[-1], place)
            eventually(lambda: others[CLIENTS_MAX - 1].recv(1) == b"", what="somebody who came later was pushed out")

    others: list[socket.socket] = []
    with ExitStack() as stack:
        stack.enter_context(ControlLoop(ControlServer(path, answer)))
        monkeypatch.setattr(control, "connect", crowd)
        assert ask(path, Stop(["calm"])) == Done()
    assert asked == [Stop(["calm"])]


def test_who_dies_at_any_point_is_forgotten(path: Path, server: ControlServer, clients: Client) -> None:
    held = len(os.listdir("/proc/self/fd"))
    for data in (b"", STATUS, b"garbage"):
        early, late = clients(path), clients(path)
        early.send(data)
        early.close()
        server.serve(0.0)
        late.send(data)
        late.close()
        server.serve(0.0)
    assert len(os.listdir("/proc/self/fd")) == held


def test_a_thousand_connections_at_once_are_survived_and_others_are_answered(tmp_path: Path, clients: Client) -> None:
    with listening(tmp_path, *(f"strategy-{number}" for number in range(50))) as supervisor:
        place = supervisor.paths.control_socket
        for _ in range(1000):
            clients(place)
        assert isinstance(ask(place, Status()), StatusReply)


def test_a_thousand_commands_at_once_are_all_answered_in_bounded_turns(tmp_path: Path) -> None:
    supervisor = Pretended(tmp_path, *(f"strategy-{number}" for number in range(50)))
    loop = ControlLoop(ControlServer(supervisor.paths.control_socket, lambda request, peer: supervisor.status()))
    with loop, ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(lambda _: ask(supervisor.paths.control_socket, Status(), 30), range(1000)))
    assert all(isinstance(reply, StatusReply) and len(reply.processes) == 51 for reply in replies)
    assert max(loop.steps) <= STEPS_MAX


def test_who_never_reads_costs_nobody_anything(path: Path, clients: Client) -> None:
    large = Done(["x" * (REPLY_MAX_BYTES - 100)])
    server = server_of(path, lambda request, peer: large)
    for _ in range(200):
        clients(path).send(STATUS)
        server.serve(0.0)
    client = clients(path)
    client.send(STATUS)
    server.serve(0.0)
    assert reply_of(client) == large, "in one piece, and after the server has hung up"
    server.close()


def test_a_reply_that_no_packet_can_carry_becomes_a_sentence(path: Path, clients: Client) -> None:
    server = server_of(path, lambda request, peer: Done(["x" * REPLY_MAX_BYTES]))
    client = clients(path)
    client.send(STATUS)
    server.serve(0.0)
    reply = reply_of(client)
    assert isinstance(reply, Refused)
    assert "more than a packet may have" in reply.reason
    server.close()


# ---- replies that take longer


def test_a_reply_that_takes_longer_is_asked_for_until_it_is_there(path: Path, clients: Client) -> None:
    replies = iter([None, None, DumpReply("stacks")])
    server = server_of(path, lambda request, peer: lambda: next(replies))
    client = clients(path)
    client.send(STATUS)
    for _ in range(4):
        server.serve(0.0)
    assert reply_of(client) == DumpReply("stacks")
    server.close()


def test_nobody_is_asked_for_the_sake_of_a_client_that_has_left(path: Path, clients: Client) -> None:
    asked = []
    server = server_of(path, lambda request, peer: lambda: asked.append(1))
    client = clients(path)
    client.send(STATUS)
    server.serve(0.0)
    server.serve(0.0)
    client.close()
    server.serve(0.0)
    so_far = len(asked)
    server.serve(0.0)
    assert len(asked) == so_far > 0
    server.close()


def test_when_everybody_waits_the_next_one_waits_outside(path: Path, clients: Client) -> None:
    is_there: list[Reply] = []
    server = server_of(path, lambda request, peer: lambda: is_there[0] if is_there else None)
    waiting = [clients(path) for _ in range(CLIENTS_MAX)]
    for client in waiting:
        client.send(STATUS)
    outside = clients(path)
    outside.send(STATUS)
    assert max(server.serve(turn / 10) for turn in range(20)) <= STEPS_MAX
    is_there.append(Done(["now"]))
    for turn in range(20):
        server.serve(2 + turn / 10)
    assert [reply_of(client) for client in (*waiting, outside)] == [Done(["now"])] * (CLIENTS_MAX + 1)
    server.close()


def test_descriptors_that_are_used_up_do_not_end_it(path: Path, server: ControlServer, clients: Client) -> None:
    client = clients(path)
    client.send(STATUS)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, before[1]))
    try:
        highest = server.serve(0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert highest <= STEPS_MAX
    server.serve(5.0)
    server.serve(5.1)
    assert reply_of(client) == Done(["Status"])


def test_a_mistake_in_one_command_is_the_end_of_that_command_only(path: Path, clients: Client) -> None:
    def answer(request: Request, peer: Peer) -> Reply | Callable[[], Reply]:
        return (lambda: DumpReply(str(1 // 0))) if isinstance(request, Dump) else Done([str([][0])])

    server = server_of(path, answer)
    for request in (Status(), Dump("calm")):
        client = clients(path)
        client.send(msgspec.msgpack.encode(Envelope(PROTOCOL, request)))
        server.serve(0.0)
        server.serve(0.1)
        reply = reply_of(client)
        assert isinstance(reply, Refused)
        assert "failed unexpectedly" in reply.reason
    server.close()


# ---- who may ask what


@pytest.fixture
def open_to_all() -> Iterator[ControlServer]:
    """A socket that any user can reach: so it is the supervisor who decides."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = server_of(Path(folder) / "control.sock", answer_done)
        server.path.chmod(0o666)
        yield server
        server.close()


def ask_as(server: ControlServer, request: Request, uid: int, gid: int, *groups: int) -> Reply | None:
    """The kernel notes who somebody is at the moment of the connection."""
    before = os.getgroups()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        try:
            os.setgroups(groups)
            os.setegid(gid)
            os.seteuid(uid)
            connect(client, server.path)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)
        client.send(msgspec.msgpack.encode(Envelope(PROTOCOL, request)))
        server.serve(0.0)
        return reply_of(client)


@pytest.mark.root
def test_root_may_do_all(open_to_all: ControlServer) -> None:
    assert ask_as(open_to_all, Stop(["calm"]), 0, 65534) == Done(["Stop"])


@pytest.mark.root
@pytest.mark.parametrize("groups", [(0,), (65534, 0)], ids=["first group", "further group"])
def test_the_sockets_group_may_look_and_not_touch(open_to_all: ControlServer, groups: tuple[int, ...]) -> None:
    assert ask_as(open_to_all, Status(), 65534, *groups) == Done(["Status"])
    for request in (Stop(["calm"]), Dump("calm"), Reload(dry_run=True), Down()):
        reply = ask_as(open_to_all, request, 65534, *groups)
        assert isinstance(reply, Refused)
        assert reply.reason.startswith("only root may")


@pytest.mark.root
def test_a_stranger_may_not_even_look(open_to_all: ControlServer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        reply = ask_as(open_to_all, Status(), 65534, 65534)
        assert isinstance(reply, Refused)
        assert "uid 65534 is none of them" in reply.reason
    (said,) = caplog.messages
    assert "refused someone (uid 65534, pid" in said


# ---- the verbs behind it


def test_a_command_may_be_sent_again(tmp_path: Path) -> None:
    with listening(tmp_path, "calm", "eager") as supervisor:
        place = supervisor.paths.control_socket
        first, second = ask(place, Stop(["calm"])), ask(place, Stop(["calm"]))
        assert isinstance(first, Done)
        assert first == second
        assert '"calm"' in supervisor.paths.desired.read_text()


def test_while_everything_stops_no_command_begins_anything(tmp_path: Path) -> None:
    with listening(tmp_path, "calm") as supervisor:
        supervisor.is_stopping = True
        with pytest.raises(RequestRefused, match="everything is being stopped"):
            ask(supervisor.paths.control_socket, Stop(["calm"]))
        assert not supervisor.done


def test_many_hostile_clients_and_one_that_commands(tmp_path: Path) -> None:
    """Half of them lie, half of them stay silent, for as long as somebody else gives orders."""
    over = threading.Event()

    def besiege(place: Path) -> None:
        while not over.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as liar:
                liar.settimeout(1)
                connect(liar, place)
                liar.send(os.urandom(512))

    with listening(tmp_path, "calm") as supervisor, ThreadPoolExecutor(8) as pool:
        try:
            for _ in range(8):
                pool.submit(besiege, supervisor.paths.control_socket)
            for _ in range(20):
                ask(supervisor.paths.control_socket, Stop(["calm"]), 30)
        finally:
            over.set()
    assert supervisor.done == ["unwant calm"] * 20
