"""Settings: what may be told from outside, and the one clear line when it is wrong."""

from pathlib import Path

import pytest

from common.settings import Settings, SettingsError, load


def file(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return {"ORCHESTRATOR_CONFIG": str(path)}


def test_defaults_are_those_everybody_relies_on() -> None:
    settings = load({})
    assert settings.server_url == "https://api.getedge.me"
    assert settings.state_dir == Path("/var/orchestrator")
    assert settings.run_dir == Path("/run/orchestrator")
    assert settings.mtls_dir == Path.home() / ".mtls"
    assert settings.runtime_image == "ghcr.io/autonomy-logic/openplc-runtime"
    assert settings.docker_host == "unix:///var/run/docker.sock"


def test_environment_beats_the_file_which_beats_the_defaults(tmp_path: Path) -> None:
    environment = file(tmp_path, 'server_url = "https://file"\nlog_level = "DEBUG"\ninterfaces = ["br0"]\n')
    settings = load(environment | {"ORCHESTRATOR_SERVER_URL": "https://environment"})
    assert settings.server_url == "https://environment"
    assert settings.log_level == "DEBUG"
    assert settings.interfaces == ("br0",)
    assert settings.run_dir == Settings().run_dir


def test_lists_numbers_and_paths_are_read_from_the_environment() -> None:
    settings = load(
        {
            "ORCHESTRATOR_INTERFACES": "ens*, br0 ,",
            "ORCHESTRATOR_LOG_DAYS": "3",
            "ORCHESTRATOR_MTLS_DIR": "~/keys",
            "DOCKER_HOST": "unix:///elsewhere.sock",
        }
    )
    assert settings.interfaces == ("ens*", "br0")
    assert settings.log_days == 3
    assert settings.mtls_dir == Path.home() / "keys"
    assert settings.docker_host == "unix:///elsewhere.sock"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"ORCHESTRATOR_COLOUR": "blue"}, "unknown setting ORCHESTRATOR_COLOUR"),
        ({"ORCHESTRATOR_LOG_LEVEL": "LOUD"}, "$.log_level"),
        ({"ORCHESTRATOR_LOG_DAYS": "many"}, "$.log_days"),
        ({"ORCHESTRATOR_RUN_DIR": ""}, "$.run_dir"),
        ({"ORCHESTRATOR_NETMON_SOCKET_MODE": "rw-"}, "$.netmon_socket_mode"),
        ({"ORCHESTRATOR_CONFIG": "/no/such/file.toml"}, "/no/such/file.toml does not exist"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(environment: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(environment)
    assert told in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour = 1", "unknown setting colour"),
        ("log_days = ", "Invalid value"),
        ("log_days = [1]", "$.log_days"),
        ("\x00", "agent.toml"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(file(tmp_path, text))
    assert told in str(wrong.value)


def test_keys_of_our_build_tools_may_stand_in_the_environment() -> None:
    assert load({"ORCHESTRATOR_CACHE": "/x", "ORCHESTRATOR_ENGINE_LOG": "/y"}) == load({})
