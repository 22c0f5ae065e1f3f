"""What a worker among several ranks sees, and who of them speaks."""

from __future__ import annotations

import pytest

from vgaudit.cli import ranked
from vgaudit.ranks import MEETING, Ranks
from vgaudit.sandbox import Rules, environment

GIVEN = {
    "PATH": "/bin",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "NCCL_SOCKET_IFNAME": "eth0",
    "GLOO_SOCKET_IFNAME": "eth0",
    "AWS_SECRET": "x",
}
OF_RANKS = set(GIVEN) - {"PATH", "AWS_SECRET"}


@pytest.mark.parametrize("own_code", [False, True])
def test_only_a_worker_that_meets_others_sees_where(own_code: bool) -> None:
    alone = environment(Rules(own_code=own_code), GIVEN, "/x")
    meets = environment(Rules(own_code=own_code, meeting="scan"), GIVEN, "/x")

    assert not OF_RANKS & set(alone)
    assert set(meets) >= OF_RANKS
    assert "AWS_SECRET" not in meets
    assert MEETING not in alone
    assert "scan" == meets[MEETING]


def test_without_a_sandbox_the_meeting_still_has_its_name() -> None:
    assert {**GIVEN, MEETING: "retrain"} == environment(
        Rules(mode="off", meeting="retrain"), GIVEN, "/x"
    )


# ``--debug`` leaves the process its output, which it would not get back.


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_rank")
@pytest.mark.parametrize("command", ["scan", "check"])
def test_the_second_rank_shares_some_commands(command: str) -> None:
    part = ranked.taken([command, "model.pt", "--debug"])

    assert ranked.Part(Ranks(1, 2, 1), works=True) == part
    assert part.follows
    assert not ranked.writes()


@pytest.mark.usefixtures("second_rank")
@pytest.mark.parametrize("typed", [["convert", "model.pt"], ["--help"], ["--version"]])
def test_the_second_rank_leaves_the_others_to_the_first(typed: list[str]) -> None:
    part = ranked.taken([*typed, "--debug"])

    assert not part.works
    assert ranked.writes()  # It is alone now, should it do anything.


@pytest.mark.usefixtures("second_rank")
def test_half_a_launch_is_no_launch_for_what_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MASTER_PORT")

    assert ranked.Part() == ranked.taken(["rules"])


def test_one_process_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)

    part = ranked.taken(["scan", "model.pt"])

    assert ranked.Part() == part
    assert not part.follows
    part.leave(3)  # Returns at once.
