"""Pure: every setting, written once; environment, file, flags and README rows come from here.

A value is taken from the first of: a command line flag, the environment (``XBYTE_`` and the
field's name in capitals), the TOML file, the default. Keys of wallets are read from the
environment or from an encrypted keystore file only.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from xbyte_live.errors import ConfigError, MoneyError
from xbyte_live.money import PRICE_DECIMALS, Asset, Price, is_address, parse_decimal

ENV_PREFIX = "XBYTE_"
MIB = 2**20

Policy = Literal["settle_first", "optimistic"]
SecondPublisher = Literal["refuse", "take_over"]
PrivateAddresses = Literal["refuse", "allow"]
LogLevel = Literal["debug", "info", "warning", "error"]

_NETWORK = re.compile(r"eip155:[1-9][0-9]{0,31}")


class Secret(str):
    """Text that is shown as stars when it is printed, formatted or logged."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(str(self))

    def __str__(self) -> str:
        return "***" if self else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def reveal(self) -> str:
        """The text itself."""
        return str.__str__(self)


def setting(default: Any, about: str, *, flag: bool = True, shown: bool = True) -> Any:
    """One row of ``Settings``; ``flag=False`` keeps it off the command line.

    ``shown=False`` keeps the value, which may hold a password, out of the settings' ``repr``.
    """
    return field(default=default, repr=shown, metadata={"about": about, "flag": flag})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process; sizes in bytes, times in seconds, money in dollars."""

    data_dir: Path = setting(Path("xbyte-data"), "where the database and the segments are kept")
    database_url: str = setting(
        "", "SQLAlchemy URL (SQLite or PostgreSQL); empty: SQLite in `data_dir`", shown=False
    )
    host: str = setting("127.0.0.1", "address the HTTP server listens on")
    port: int = setting(8402, "port the HTTP server listens on")
    workers: int = setting(1, "processes that answer HTTP on this machine")
    public_url: str = setting(
        "", "the URL viewers use, when a proxy stands in front; empty: as each request says"
    )
    cors_origins: tuple[str, ...] = setting(("*",), "origins whose pages may play")
    site_name: str = setting("xByte Live", "what the pages call this server")
    faucet_url: str = setting(
        "", "URL that hands out test money, on a local test chain only; pages then offer it"
    )
    log_level: LogLevel = setting("info", "least important kind of line that is logged")

    admin_token: Secret = setting(
        Secret(""),
        "what opens the studio and its API, 24 letters or more; empty: one is made and kept in "
        "`data_dir`",
        flag=False,
    )
    admin_failures: int = setting(
        10, "wrong admin tokens a network may try in a minute before they are refused unlogged"
    )
    event_subscribers: int = setting(32, "studio pages that may follow the live figures at once")

    pay_to: str = setting("", "the payee's address, for items without one of their own")
    price: str = setting("0.001", "dollars per MB for items added without `--price`")
    networks: tuple[str, ...] = setting(
        ("eip155:8453",), "CAIP-2 networks payments are taken on, the preferred one first"
    )
    rpc_urls: tuple[str, ...] = setting(
        (),
        "RPC nodes as `NETWORK=URL`; known networks have a public one by default",
        shown=False,
    )
    assets: tuple[str, ...] = setting(
        (),
        "other tokens than the network's USDC, as `NETWORK/ADDRESS/NAME/VERSION/DECIMALS/SYMBOL`",
    )
    schemes: tuple[str, ...] = setting(
        ("batch-settlement", "exact"), "x402 schemes payments are taken by, the preferred one first"
    )
    withdraw_delay: int = setting(
        86_400, "seconds a payer waits for its channel's money when it does not ask us for it"
    )
    deposit_minutes: int = setting(10, "minutes of an item a channel deposit is asked to last")
    deposit_floor: str = setting("0.01", "dollars; a smaller deposit is not worth its gas")
    receiver_authorizer_key: Secret = setting(
        Secret(""),
        "private key that authorizes claims and refunds of channels; empty: the gas key, or the "
        "facilitator's",
        flag=False,
    )
    earlier_authorizer_keys: Secret = setting(
        Secret(""),
        "private keys, by commas, that authorized channels before and still claim and refund those",
        flag=False,
    )
    claim_interval: int = setting(3600, "seconds between two claims of what channels were charged")
    claim_threshold: str = setting("50.00", "dollars unclaimed of a payee that are claimed at once")
    settle_interval: int = setting(3600, "seconds between two payouts of claimed money to payees")
    idle_refund: int = setting(
        604_800, "seconds without a charge after which a channel's rest is refunded; 0: never"
    )
    confirmations: int = setting(1, "blocks that must hold a transaction before it counts")
    max_gas_price: str = setting("0", "gwei above which nothing but deposits is sent; 0: no cap")
    low_gas: str = setting("0.0005", "coins of the gas key below which an alarm is raised")
    watch_interval: int = setting(15, "seconds between two looks at the chain for withdrawals")
    session_ttl: int = setting(86_400, "seconds a session may last after it was last paid for")
    session_connections: int = setting(
        4, "requests of one session at the same time, and addresses they may come from"
    )
    session_max_budget: str = setting("20.00", "dollars one payment for a session may carry")
    payee_key: Secret = setting(
        Secret(""),
        "private key of `pay_to`, to give back what sessions bought with `exact` have left; "
        "empty: it stays the payer's credit",
        flag=False,
    )
    delivery_retention: int = setting(
        90, "days after which deliveries are summed up by day and item; 0: kept for ever"
    )
    exact_policy: Policy = setting(
        "settle_first",
        "`settle_first`: bytes after the transfer is confirmed; "
        "`optimistic`: bytes at once, settlement queued",
    )
    exposure_cap: str = setting(
        "1.00", "dollars one payer may owe under `optimistic` before it waits for the chain"
    )
    new_payer_cap: str = setting(
        "0.01", "the same for a payer none of whose payments has settled yet"
    )
    quote_ttl: int = setting(60, "seconds a quoted amount stays good after a price change")
    retry_window: int = setting(120, "seconds the same payment re-serves the same bytes free")
    payment_timeout: int = setting(300, "seconds a payer's authorization is asked to stay valid")
    settle_wait: int = setting(30, "seconds a request waits for the chain before it answers 503")

    facilitators: tuple[str, ...] = setting(
        (), "x402 facilitator URLs, asked in this order; empty: settle with our own gas key"
    )
    facilitator_timeout: int = setting(20, "seconds a facilitator may take to answer")
    gas_key: Secret = setting(
        Secret(""), "private key that pays gas when there are no facilitators", flag=False
    )
    gas_keystore: str = setting("", "encrypted keystore file that holds the gas key instead")
    gas_keystore_password: Secret = setting(Secret(""), "password of `gas_keystore`", flag=False)
    smart_wallet_factories: tuple[str, ...] = setting(
        (), "ERC-6492 factories our gas key may call to deploy a payer's smart wallet"
    )

    cache_bytes: int = setting(256 * MIB, "bytes of segments held in memory")
    item_cache: int = setting(512, "items held in memory")
    write_queue: int = setting(4096, "database writes that may wait before requests get 503")
    cashier_from: int = setting(
        8,
        "vouchers waiting together from which a process of its own charges them; 0: it never does",
    )
    settle_parallel: int = setting(16, "payments settled at the same time")
    settle_queue: int = setting(
        1024, "payments that may wait for the chain before requests get 503"
    )
    max_payment_header: int = setting(16384, "bytes a payment header may have")
    segment_target: int = setting(6, "seconds a packaged segment lasts")

    rtmp_host: str = setting("", "address the RTMP server listens on; empty: as `host`")
    rtmp_port: int = setting(1935, "port publishers push to; 0: no RTMP")
    rtmps_port: int = setting(0, "port for RTMP over TLS; 0: none")
    rtmps_certificate: str = setting("", "PEM file with the certificate chain for RTMPS")
    rtmps_key_file: str = setting("", "PEM file with its private key, if not in the same file")
    rtmp_handshake_timeout: int = setting(10, "seconds a connection has to begin publishing")
    rtmp_idle_timeout: int = setting(20, "seconds a publisher may be silent")
    rtmp_max_message: int = setting(8 * MIB, "bytes one RTMP message may have")
    rtmp_connections: int = setting(200, "RTMP connections at the same time")
    rtmp_connections_per_address: int = setting(20, "the same from one address")
    publish_failures: int = setting(
        10, "wrong stream keys a network may try in a minute before they are refused unlogged"
    )
    second_publisher: SecondPublisher = setting(
        "refuse", "`refuse` a second publisher of a stream on air, or let it `take_over`"
    )
    republish_window: int = setting(
        120, "seconds a publisher may be away before its broadcast has ended"
    )
    live_segment_target: int = setting(2, "seconds a live segment lasts, 1 to 10")
    live_window: int = setting(60, "seconds of a broadcast a sliding playlist lists")
    live_longest_segment: int = setting(
        10, "seconds without a keyframe after which a live segment is cut anyway"
    )
    feed_memory: int = setting(512 * MIB, "bytes the process that packages one feed may take")
    feed_timeout: int = setting(10, "seconds that process may be stuck before it is ended")
    feed_restarts: int = setting(3, "times a minute it is started again before its feed is ended")
    waiting_readers: int = setting(10_000, "playlist requests that may wait for the next segment")
    pull_schemes: tuple[str, ...] = setting(
        ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "tcp", "udp"),
        "kinds of URL that streams may be pulled from",
    )
    pull_private: PrivateAddresses = setting(
        "refuse", "`allow` pulling from private and local addresses, or `refuse`"
    )
    recording_max_age: int = setting(0, "seconds a recording stays on sale; 0: for ever")
    recording_max_bytes: int = setting(
        0, "bytes all recordings may take before the oldest go; 0: no limit"
    )
    on_publish_url: str = setting(
        "", "URL that is asked before a publisher goes on air; only 2xx lets it", shown=False
    )
    webhook_urls: tuple[str, ...] = setting(
        (), "URLs told when streams start and end and recordings are ready", shown=False
    )
    webhook_secret: Secret = setting(Secret(""), "what webhooks are signed with", flag=False)
    webhook_timeout: int = setting(5, "seconds a webhook may take to answer")

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more")
        for name in ("port", "rtmp_port", "rtmps_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(f"{name} must lie between 0 and 65535")
        unknown = set(self.schemes) - {"batch-settlement", "exact"}
        if unknown or not self.schemes:
            raise ConfigError("schemes takes batch-settlement and exact, one of them at least")
        if 0 < len(self.admin_token.reveal()) < 24:
            raise ConfigError("admin_token must have 24 letters or more, as nobody can guess")
        if not 900 <= self.withdraw_delay <= 2_592_000:
            raise ConfigError("withdraw_delay must lie between 900 and 2592000 seconds")
        for name, decimals in (("max_gas_price", 9), ("low_gas", 18)):
            try:
                parse_decimal(getattr(self, name), decimals)
            except MoneyError as error:
                raise ConfigError(f"{name}: {error}") from None
        if self.live_segment_target > 10:
            raise ConfigError("live_segment_target must be 10 or less")
        if self.rtmp_max_message >= 16 * MIB:
            raise ConfigError("rtmp_max_message must be less than 16 MiB, as FLV tags are")
        if self.on_publish_url and not self.webhook_secret.reveal():
            raise ConfigError("on_publish_url needs webhook_secret, which signs the question")
        if self.rtmps_port and not self.rtmps_certificate:
            raise ConfigError("rtmps_port needs a certificate; set rtmps_certificate")
        for name in (
            *("price", "exposure_cap", "new_payer_cap", "deposit_floor", "claim_threshold"),
            "session_max_budget",
        ):
            try:
                units = parse_decimal(getattr(self, name), PRICE_DECIMALS)
                if name == "price":
                    Price(units)
            except MoneyError as error:
                raise ConfigError(f"{name}: {error}") from None
        if not self.networks:
            raise ConfigError("networks must name at least one network, such as eip155:8453")
        for network in self.networks:
            if _NETWORK.fullmatch(network) is None:
                raise ConfigError(f"networks: {network!r} is not of the form eip155:CHAIN_ID")
        if self.pay_to and not is_address(self.pay_to):
            raise ConfigError("pay_to must be an address: 0x and 40 hex digits")
        for name, urls in {
            "public_url": [self.public_url] if self.public_url else [],
            "facilitators": self.facilitators,
            "rpc_urls": self.rpc_by_network.values(),
            "faucet_url": [self.faucet_url] if self.faucet_url else [],
            "on_publish_url": [self.on_publish_url] if self.on_publish_url else [],
            "webhook_urls": self.webhook_urls,
        }.items():
            if not all(map(_is_http, urls)):  # not shown: such URLs often hold a key
                raise ConfigError(f"{name} takes http:// or https:// URLs with a host")
        self.custom_assets  # noqa: B018  a malformed asset is reported here, not at first use

    @property
    def rtmp_address(self) -> str:
        """The address the RTMP server listens on: ``rtmp_host``, else ``host``."""
        return self.rtmp_host or self.host

    @property
    def resolved_database_url(self) -> str:
        """``database_url``, or the SQLite file in ``data_dir``."""
        return self.database_url or f"sqlite:///{self.data_dir / 'xbyte.db'}"

    @property
    def default_price(self) -> Price:
        """``price`` as a ``Price``."""
        return Price.parse(self.price)

    @property
    def exposure_caps(self) -> tuple[int, int]:
        """``exposure_cap`` and ``new_payer_cap`` in millionths of a dollar."""
        return (
            parse_decimal(self.exposure_cap, PRICE_DECIMALS),
            parse_decimal(self.new_payer_cap, PRICE_DECIMALS),
        )

    @property
    def deposit_units(self) -> int:
        """``deposit_floor`` in millionths of a dollar."""
        return parse_decimal(self.deposit_floor, PRICE_DECIMALS)

    @property
    def session_units(self) -> int:
        """``session_max_budget`` in millionths of a dollar."""
        return parse_decimal(self.session_max_budget, PRICE_DECIMALS)

    @property
    def rpc_by_network(self) -> dict[str, str]:
        """RPC URL by CAIP-2 network, known public nodes included."""
        urls = dict(PUBLIC_RPC_URLS)
        for entry in self.rpc_urls:
            network, _, url = entry.partition("=")
            if _NETWORK.fullmatch(network) is None:
                raise ConfigError("rpc_urls takes NETWORK=URL, such as eip155:8453=https://…")
            urls[network] = url
        return urls

    @property
    def custom_assets(self) -> tuple[Asset, ...]:
        """The tokens named in ``assets``."""
        found = []
        for entry in self.assets:
            try:
                network, address, name, version, decimals, symbol = entry.split("/")
                if not (_NETWORK.fullmatch(network) and is_address(address)):
                    raise ValueError("no eip155:CHAIN_ID network or no 0x address")
                found.append(Asset(network, address, name, version, int(decimals), symbol))
            except (ValueError, MoneyError) as error:
                raise ConfigError(
                    f"assets: {entry!r} is not NETWORK/ADDRESS/NAME/VERSION/DECIMALS/SYMBOL "
                    f"({error})"
                ) from None
        return tuple(found)


_LEAST = {
    "workers": 1, "quote_ttl": 1, "retry_window": 1, "payment_timeout": 10, "settle_wait": 1,
    "facilitator_timeout": 1, "deposit_minutes": 1, "claim_interval": 1, "settle_interval": 1,
    "idle_refund": 0, "confirmations": 1, "watch_interval": 1, "cache_bytes": 0,
    "item_cache": 1, "write_queue": 1, "cashier_from": 0,
    "settle_parallel": 1, "settle_queue": 1, "max_payment_header": 1024, "segment_target": 1,
    "rtmp_handshake_timeout": 1, "rtmp_idle_timeout": 1, "rtmp_max_message": 65536,
    "rtmp_connections": 1, "rtmp_connections_per_address": 1, "publish_failures": 1,
    "republish_window": 1, "live_segment_target": 1, "live_window": 6, "live_longest_segment": 2,
    "feed_memory": 64 * MIB, "feed_timeout": 1, "feed_restarts": 0, "waiting_readers": 0,
    "recording_max_age": 0, "delivery_retention": 0, "recording_max_bytes": 0,
    "webhook_timeout": 1, "session_ttl": 60, "admin_failures": 1, "event_subscribers": 0,
    "session_connections": 1,
}  # fmt: skip

PUBLIC_RPC_URLS = {
    "eip155:8453": "https://mainnet.base.org",
    "eip155:84532": "https://sepolia.base.org",
    "eip155:43114": "https://api.avax.network/ext/bc/C/rpc",
    "eip155:43113": "https://api.avax-test.network/ext/bc/C/rpc",
}


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, as documentation and command line need it."""

    name: str
    env: str
    default: str
    about: str
    kind: Any
    flag: str | None


def setting_rows() -> Iterator[SettingRow]:
    """Every setting with the names it goes by, in the order of ``Settings``."""
    kinds = get_type_hints(Settings)
    for f in fields(Settings):
        yield SettingRow(
            name=f.name,
            env=ENV_PREFIX + f.name.upper(),
            default=_shown(f.default),
            about=f.metadata["about"],
            kind=kinds[f.name],
            flag="--" + f.name.replace("_", "-") if f.metadata["flag"] else None,
        )


def load_settings(
    *,
    environ: Mapping[str, str],
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settle every value from flags (``overrides``), environment, TOML ``file`` and defaults.

    A ``None`` override counts as not given. Raises ``ConfigError`` naming the first setting
    that cannot be read, never its value when that is a secret.
    """
    from_file = _read_file(file) if file else {}
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    values: dict[str, Any] = {}
    for row in setting_rows():
        if row.kind is Secret and row.name in from_file:
            raise ConfigError(f"{row.name} may not stand in a file; set {row.env} instead")
        if row.name in given:
            values[row.name] = _read(row, given.pop(row.name))
        elif row.env in environ:
            values[row.name] = _read(row, environ[row.env])
        elif row.name in from_file:
            values[row.name] = _read(row, from_file.pop(row.name))
        from_file.pop(row.name, None)
    for unknown in (*given, *from_file):
        raise ConfigError(f"there is no setting {unknown!r}; see `xbyte-live serve --help`")
    return Settings(**values)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError:
        raise ConfigError(f"the configuration file {file} cannot be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {file} is not TOML: {error}") from None


def _read(row: SettingRow, value: Any) -> Any:
    kind = row.kind
    if get_origin(kind) is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise ConfigError(f"{row.name} takes a list of text, such as {row.env}=a,b")
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise ConfigError(f"{row.name} takes one of {', '.join(get_args(kind))}")
    if kind is int:
        try:
            if isinstance(value, str | int) and not isinstance(value, bool):
                return int(value)
        except ValueError:
            pass
        raise ConfigError(f"{row.name} takes a whole number")
    if isinstance(value, str | Path):
        return kind(value)
    raise ConfigError(f"{row.name} takes text")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default)
