"""Settings: where they come from, what overrides what, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyserve.refusals import SettingsInvalid
from comfyserve.settings import PREFIX, BackendSettings, Settings, described, load


def written(folder: Path, text: str) -> Path:
    path = folder / "comfyserve.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    """No file, no variable, no flag: the documented defaults."""
    assert load(file=tmp_path / "comfyserve.toml") == Settings()
    assert Settings().data == Path(".comfyserve")
    assert Settings().retention == 7 * 24 * 3600


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    """File over default, environment over file, flag over environment, setting by setting."""
    file = written(tmp_path, 'queue_size = 1\nretention = "1d"\nlease = "1m"\nattempts = 5')
    environment = {f"{PREFIX}RETENTION": "2d", f"{PREFIX}LEASE": "2m", "PATH": "x"}

    loaded = load(file=file, environment=environment, flags={"lease": 180, "attempts": None})

    assert (loaded.queue_size, loaded.retention) == (1, 2 * 86400)
    assert (loaded.lease, loaded.attempts, loaded.timeout) == (180, 5, None)


def test_a_path_in_the_file_is_beside_the_file(tmp_path: Path) -> None:
    """A relative data folder means the file's folder in the file, and the current one elsewhere."""
    file = written(tmp_path, 'data = "dätä"')

    assert load(file=file).data == tmp_path / "dätä"
    assert load(file=file, environment={f"{PREFIX}DATA": "here"}).data == Path("here")
    assert load(file=file, flags={"data": Path("there")}).data == Path("there")


_ORIGINS = ("https://a.org", "http://b", "http://b:8080")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("timeout", "90", 90),
        ("timeout", "1.5 h", 5400),
        ("timeout", "10min", 600),
        ("timeout", "None", None),
        ("disk_cap", "20 GB", 20 * 10**9),
        ("disk_cap", "2GiB", 2 * 2**30),
        ("disk_cap", "none", None),
        ("queue_size", " 12 ", 12),
        ("port", "0", 0),
        ("insecure", "Yes", True),
        ("log_json", "off", False),
        ("log_level", "WARNING", "warning"),
        ("host", "[::1]", "::1"),
        ("host", "GPU.local.", "gpu.local"),
        ("public_url", "https://example.org/comfy/", "https://example.org/comfy"),
        ("public_url", "none", None),
        ("trusted_proxies", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1/128")),
        ("trusted_proxies", "10.0.0.7", ("10.0.0.7/32",)),
        ("allow_origins", "https://A.org:443 http://b:80,http://b:8080/", _ORIGINS),
        ("allow_hosts", "*.example.org 10.0.0.7", ("*.example.org", "10.0.0.7")),
        ("allow_hosts", "", ()),
    ],
)
def test_people_write_values_as_they_like(name: str, given: str, value: object) -> None:
    """Amounts are understood with the usual units, lists with spaces or commas."""
    loaded = load(file=None, environment={PREFIX + name.upper(): given})

    assert getattr(loaded, name) == value


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("queue_size", "0"),
        ("queue_size", "2.5"),
        ("queue_size", "many"),
        ("queue_size", "9" * 400),
        ("queue_size", "none"),
        ("retention", "-1d"),
        ("retention", "1 week"),
        ("retention", ""),
        ("disk_cap", "20 parsec"),
        ("disk_cap", "nan"),
        ("data", " "),
        ("port", "65536"),
        ("insecure", "perhaps"),
        ("log_level", "loud"),
        ("host", "gpu.local:8189"),
        ("host", "*.local"),
        ("public_url", "example.org"),
        ("public_url", "https://me:secret@example.org"),
        ("public_url", "https://example.org/?a=b"),
        ("public_url", "http://[::1"),
        ("trusted_proxies", "proxy.local"),
        ("allow_origins", "*"),
        ("allow_origins", "null"),
        ("allow_origins", "https://a.org/path"),
        ("allow_hosts", "*"),
        ("allow_hosts", "a.org:80"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, given: str) -> None:
    """A value that makes no sense is refused in a sentence that names setting and value."""
    with pytest.raises(SettingsInvalid) as refused:
        load(file=None, environment={PREFIX + name.upper(): given})

    (problem,) = refused.value.problems
    assert name in problem
    assert repr(given) in problem
    assert problem.endswith((".", "?"))


def test_backends_are_addresses_or_tables(tmp_path: Path) -> None:
    """A backend is an address wherever it is told, and in the file also what opens its door."""
    file = written(
        tmp_path,
        """
        [[backends]]
        url = "https://gpu.example.org/comfy/"
        headers = { X-Api-Key = "1234" }
        token = "secret"
        verify_tls = false
        [[backends]]
        url = "http://127.0.0.1:8188"
        """,
    )
    addresses = {f"{PREFIX}BACKENDS": "http://a:1, http://b:2"}

    first, second = load(file=file).backends

    assert first.url == "https://gpu.example.org/comfy"
    assert (first.headers, first.token) == ({"X-Api-Key": "1234"}, "secret")
    assert (first.verify_tls, second) == (False, BackendSettings("http://127.0.0.1:8188"))
    assert [one.url for one in load(file=file, environment=addresses).backends] == [
        "http://a:1",
        "http://b:2",
    ]
    assert "1234" not in repr(first) + str(first) and "secret" not in repr(first)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backends = ['http://me:secret@']", "an address such as"),
        ("backends = 'secret'", "an address such as"),
        ("[[backends]]\nurl = 'http://a'\n[[backends]]\nurl = 'http://a/'", "once"),
        ("backends = 3", "a list is needed"),
        ("[[backends]]\ntoken = 'secret'", "an address such as"),
        ("[[backends]]\nurl = 'http://a'\ntokn = 'secret'", "Did you mean 'token'?"),
        ("[[backends]]\nurl = 'http://a'\nheaders = 'secret'", "headers by name"),
        ("[[backends]]\nurl = 'http://a'\ntoken = 3", "a text is needed"),
    ],
)
def test_a_backend_that_cannot_be_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """What is wrong with a backend is said, without the secrets that stand beside it."""
    with pytest.raises(SettingsInvalid) as refused:
        load(file=written(tmp_path, text))

    (problem,) = refused.value.problems
    assert told in problem
    assert "secret" not in problem


@pytest.mark.parametrize("given", [True, float("nan"), float("inf"), [1], {"a": 1}])
def test_a_wrong_kind_from_the_file_is_refused(given: object) -> None:
    """Values of other kinds are no numbers, whatever the file's language makes of them."""
    with pytest.raises(SettingsInvalid):
        load(file=None, flags={"queue_size": given})


def test_unknown_settings_are_refused_all_at_once(tmp_path: Path) -> None:
    """A misspelt name is an error with the nearest right one, wherever it stands."""
    file = written(tmp_path, "queue_sise = 3\nlease = 0")

    with pytest.raises(SettingsInvalid) as refused:
        load(file=file, environment={f"{PREFIX}RETENTOIN": "1d"})

    assert len(refused.value.problems) == 3
    assert "Did you mean 'queue_size'?" in refused.value.problems[0]
    assert "at least 1" in refused.value.problems[1]
    assert "Did you mean 'retention'?" in refused.value.problems[2]


def test_variables_of_other_rooms_are_no_settings() -> None:
    """Which server a client talks to, and its token, are not for a server."""
    environment = {f"{PREFIX}SERVER": "http://gpu:8188", f"{PREFIX}TOKEN": "secret"}

    assert load(file=None, environment=environment) == Settings()


@pytest.mark.parametrize("content", [b"queue_size = ", b"\xff\xfe\x00", b"[a\n"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """What is no TOML is an error that names the file."""
    path = tmp_path / "comfyserve.toml"
    path.write_bytes(content)

    with pytest.raises(SettingsInvalid, match=r"comfyserve\.toml"):
        load(file=path)


def test_every_setting_is_described() -> None:
    """Each field has a variable, a kind, its default and a whole sentence."""
    told = described()

    assert [one.name for one in told] == [one.name for one in fields(Settings)]
    assert all(one.help.endswith(".") and one.variable.startswith(PREFIX) for one in told)
    assert "backends" in {one.kind for one in told}
    assert {one.name: one.default for one in told}["queue_size"] == Settings().queue_size


@given(st.text(max_size=30), st.sampled_from([one.name for one in described()]))
def test_any_text_is_understood_or_refused(text: str, name: str) -> None:
    """No value for any setting leads to anything but settings or our error."""
    try:
        loaded = load(file=None, flags={name: text})
    except SettingsInvalid:
        return
    assert loaded.retention >= 60
