"""Each setting is written once, reads from everywhere alike, and shows no secret."""

import ast
import logging
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.docs import DOCS, settings_table, table_in
from xbyte_live import config
from xbyte_live.config import ENV_PREFIX, Secret, Settings, load_settings, setting_rows
from xbyte_live.errors import ConfigError
from xbyte_live.money import Asset, Price

PACKAGE = Path(config.__file__).parent
KEY = "0x" + "5ec2e7" * 10 + "abcd"
ADDRESS = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"


def test_every_setting_has_a_default() -> None:
    assert load_settings(environ={}) == Settings()


def test_the_first_of_flag_environment_file_and_default_wins(tmp_path: Path) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_text("port = 3\nquote_ttl = 33\nretry_window = 333\n")
    settings = load_settings(
        environ={"XBYTE_PORT": "2", "XBYTE_QUOTE_TTL": "22"}, file=file, overrides={"port": 1}
    )
    assert (settings.port, settings.quote_ttl, settings.retry_window) == (1, 22, 333)
    assert settings.payment_timeout == Settings().payment_timeout


def test_a_flag_that_was_not_given_counts_for_nothing() -> None:
    assert load_settings(environ={"XBYTE_PORT": "2"}, overrides={"port": None}).port == 2


def test_all_of_the_settings_can_stand_in_the_environment() -> None:
    environ = {row.env: row.default for row in setting_rows() if row.default}
    environ["XBYTE_GAS_KEY"] = KEY
    settings = load_settings(environ=environ)
    assert settings == Settings(gas_key=Secret(KEY))


def test_values_have_the_types_of_their_fields(tmp_path: Path) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_text(
        'data_dir = "/srv/x"\nnetworks = ["eip155:1", "eip155:2"]\nport = 0\n'
        'exact_policy = "optimistic"\nprice = "0.5"\n'
    )
    settings = load_settings(environ={"XBYTE_CORS_ORIGINS": " a , ,b,"}, file=file)
    assert settings.data_dir == Path("/srv/x")
    assert settings.networks == ("eip155:1", "eip155:2")
    assert settings.cors_origins == ("a", "b")
    assert settings.exact_policy == "optimistic"
    assert settings.default_price == Price(500_000)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"XBYTE_PORT": "many"}, "port takes a whole number"),
        ({"XBYTE_PORT": "1.5"}, "port takes a whole number"),
        ({"XBYTE_PORT": ""}, "port takes a whole number"),
        ({"XBYTE_PORT": "65536"}, "port must lie between"),
        ({"XBYTE_EXACT_POLICY": "free"}, "exact_policy takes one of settle_first, optimistic"),
        ({"XBYTE_LOG_LEVEL": "loud"}, "log_level takes one of"),
        ({"XBYTE_PRICE": "a lot"}, "price: "),
        ({"XBYTE_PRICE": "0.0000001"}, "price: "),
        ({"XBYTE_EXPOSURE_CAP": "-1"}, "exposure_cap: "),
        ({"XBYTE_NETWORKS": ""}, "networks must name at least one"),
        ({"XBYTE_NETWORKS": "base"}, "networks: 'base' is not of the form"),
        ({"XBYTE_NETWORKS": "8453"}, "networks: '8453' is not of the form"),
        ({"XBYTE_NETWORKS": "eip155:08453"}, "is not of the form"),
        ({"XBYTE_NETWORKS": "eip155:٣"}, "is not of the form"),
        ({"XBYTE_PAY_TO": "0x1234"}, "pay_to must be an address"),
        ({"XBYTE_PAY_TO": "alice.eth"}, "pay_to must be an address"),
        ({"XBYTE_PUBLIC_URL": "media.example"}, "public_url takes http"),
        ({"XBYTE_FACILITATORS": "https://good.example,ftp://bad.example"}, "facilitators takes"),
        ({"XBYTE_FACILITATORS": "https://"}, "facilitators takes"),
        ({"XBYTE_FACILITATORS": "http://[::1"}, "facilitators takes"),
        ({"XBYTE_FACILITATORS": "http://host:99999"}, "facilitators takes"),
        ({"XBYTE_RPC_URLS": "https://node.example"}, "rpc_urls takes NETWORK=URL"),
        ({"XBYTE_RPC_URLS": "eip155:1="}, "rpc_urls takes"),
        ({"XBYTE_RPC_URLS": "eip155:1=ws://node.example"}, "rpc_urls takes http"),
        ({"XBYTE_ASSETS": "eip155:1/0x12/USDC/2/6/USDC"}, "assets: "),
        ({"XBYTE_ASSETS": f"base/{ADDRESS}/USDC/2/6/USDC"}, "assets: "),
        ({"XBYTE_ASSETS": f"eip155:1/{ADDRESS}/DAI/1/18/DAI"}, "DAI has 18 decimals"),
        ({"XBYTE_ASSETS": f"eip155:1/{ADDRESS}/USDC/2/six/USDC"}, "assets: "),
        ({"XBYTE_ASSETS": "eip155:1"}, "assets: "),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ=environ)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["quote_ttl", "retry_window", "settle_wait", "write_queue", "settle_parallel", "item_cache"],
)
def test_a_bound_is_at_least_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be 1 or more"):
        load_settings(environ={ENV_PREFIX + name.upper(): "0"})


def test_every_number_has_a_lower_bound() -> None:
    numbers = [field.name for field in fields(Settings) if field.type is int]
    for name in numbers:
        with pytest.raises(ConfigError, match=name):
            load_settings(environ={}, overrides={name: -1})


def test_a_mistyped_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_text('prize = "0.1"\n')
    with pytest.raises(ConfigError, match="there is no setting 'prize'"):
        load_settings(environ={}, file=file)
    with pytest.raises(ConfigError, match="there is no setting 'pirce'"):
        load_settings(environ={}, overrides={"pirce": "1"})


def test_a_mistyped_setting_in_the_file_is_named_even_where_others_override(tmp_path: Path) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_text("port = 1\nprot = 2\n")
    with pytest.raises(ConfigError, match="there is no setting 'prot'"):
        load_settings(environ={"XBYTE_PORT": "3"}, file=file)


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"port == 1"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(environ={}, file=file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml cannot be read"):
        load_settings(environ={}, file=tmp_path / "missing.toml")


@pytest.mark.parametrize(
    "line",
    ["port = true", 'port = "x"', "port = 1.5", "networks = 1", "networks = [1]", "host = 1"],
)
def test_a_file_with_the_wrong_kind_of_value_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        load_settings(environ={}, file=file)


@given(st.dictionaries(st.sampled_from([row.env for row in setting_rows()]), st.text(max_size=40)))
def test_any_environment_gives_settings_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        assert isinstance(load_settings(environ=environ), Settings)
    except ConfigError as error:
        assert str(error)


def test_money_settings_are_exact() -> None:
    settings = load_settings(
        environ={"XBYTE_EXPOSURE_CAP": "0.000001", "XBYTE_NEW_PAYER_CAP": "1000000000.000001"}
    )
    assert settings.exposure_caps == (1, 1_000_000_000_000_001)


def test_the_database_is_a_file_in_the_data_directory_unless_named() -> None:
    assert Settings(data_dir=Path("/srv/x")).resolved_database_url == "sqlite:////srv/x/xbyte.db"
    named = Settings(database_url="postgresql://host/name")
    assert named.resolved_database_url == "postgresql://host/name"


def test_an_rpc_node_replaces_the_public_one_of_its_network_only() -> None:
    urls = Settings(rpc_urls=("eip155:84532=http://127.0.0.1:8545/?a=b",)).rpc_by_network
    assert urls["eip155:84532"] == "http://127.0.0.1:8545/?a=b"
    assert urls["eip155:8453"] == config.PUBLIC_RPC_URLS["eip155:8453"]


def test_an_asset_of_ones_own_is_read() -> None:
    (asset,) = Settings(assets=(f"eip155:31337/{ADDRESS}/Test USD/1/6/TUSD",)).custom_assets
    assert asset == Asset("eip155:31337", ADDRESS, "Test USD", "1", 6, "TUSD")


def secret_names() -> list[str]:
    return [row.name for row in setting_rows() if row.kind is Secret]


def test_keys_and_passwords_are_secrets_without_a_flag() -> None:
    for row in setting_rows():
        if row.name.endswith(("_key", "_password", "_secret", "_token")):
            assert row.kind is Secret, row.name
        if row.kind is Secret:
            assert row.flag is None, f"{row.name} would be seen in the list of processes"
    assert "gas_key" in secret_names()


@pytest.mark.parametrize("name", secret_names())
def test_a_secret_may_not_stand_in_a_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "xbyte.toml"
    file.write_text(f'{name} = "{KEY}"\n')
    for environ in ({}, {ENV_PREFIX + name.upper(): "another"}):
        with pytest.raises(ConfigError, match=f"{name} may not stand in a file") as raised:
            load_settings(environ=environ, file=file)
        assert KEY not in str(raised.value)


def test_settings_show_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(
        environ={
            **{ENV_PREFIX + name.upper(): KEY for name in secret_names()},
            "XBYTE_DATABASE_URL": f"postgresql://me:{KEY}@host/name",
            "XBYTE_RPC_URLS": f"eip155:1=https://node.example/{KEY}",
        }
    )
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r %s", settings, settings, settings.gas_key)
        logging.getLogger("test").info(f"{settings} {settings.gas_key} {settings.gas_key:>9}")
    assert KEY not in caplog.text
    assert settings.gas_key.reveal() == KEY
    assert type(settings.gas_key.reveal()) is str


@pytest.mark.parametrize(
    "environ",
    [
        {"XBYTE_RPC_URLS": f"https://node.example/v2/{KEY}"},
        {"XBYTE_RPC_URLS": f"eip155:1=wss://node.example/v2/{KEY}"},
        {"XBYTE_FACILITATORS": f"node.example/{KEY}"},
    ],
)
def test_a_wrong_url_is_not_repeated_with_the_key_in_it(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ=environ)
    assert KEY not in str(raised.value)


def test_a_secret_that_is_not_set_is_empty() -> None:
    assert not Settings().gas_key
    assert repr(Secret("")) == "''"
    assert f"{Secret('')}" == ""


def test_settings_cannot_change() -> None:
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]
    assert asdict(Settings())["port"] == 8402


def test_the_pages_have_every_setting_as_it_is() -> None:
    assert table_in(DOCS / "configuration.md") == settings_table()


def attributes_of(tree: ast.AST, *owners: str) -> set[str]:
    """Names read as ``owner.name`` or ``anything.owner.name``."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {
        node.attr
        for node in found
        if (isinstance(node.value, ast.Name) and node.value.id in owners)
        or (isinstance(node.value, ast.Attribute) and node.value.attr in owners)
    }


def test_every_setting_does_something() -> None:
    outside: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        if file != PACKAGE / "config.py":
            tree = ast.parse(file.read_text("utf-8"))
            outside |= attributes_of(tree, "settings", "_settings")
    settings = next(
        node
        for node in ast.parse((PACKAGE / "config.py").read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    for member in settings.body:
        if isinstance(member, ast.FunctionDef) and member.name in outside:
            outside |= attributes_of(member, "self")
    unused = [row.name for row in setting_rows() if row.name not in outside]
    assert unused == []
