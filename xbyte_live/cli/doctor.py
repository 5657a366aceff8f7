"""Wiring: ``doctor``: everything a server needs is checked, with advice about what is missing."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import click

from xbyte_live.cli.options import json_option, settings_options
from xbyte_live.cli.output import print_json, print_table
from xbyte_live.config import Settings
from xbyte_live.errors import ChainUnavailable, XByteError
from xbyte_live.live.build import tls_context
from xbyte_live.money import is_address
from xbyte_live.payments.build import build_facilitator, build_nodes
from xbyte_live.payments.x402.methods import accepted_assets
from xbyte_live.server.catalog_access import open_catalog
from xbyte_live.web.common.health import store_check
from xbyte_live.web.pages.assets import Assets

Check = Callable[[Settings], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: how the thing is, or what to do about it."""

    check: str
    ok: bool
    says: str


@click.command()
@json_option
@settings_options()
async def doctor(settings: Settings, as_json: bool) -> None:
    """Check settings, ports, database, store, chain, facilitator and keys."""
    results = [await _result(name, check, settings) for name, check in _CHECKS]
    if as_json:
        print_json([asdict(result) for result in results])
    else:
        rows = [("ok" if f.ok else "FAIL", f.check, f.says) for f in results]
        print_table(("", "check", "finding"), rows)
    if not all(result.ok for result in results):
        raise click.exceptions.Exit(1)


async def _result(name: str, check: Check, settings: Settings) -> CheckResult:
    try:
        return CheckResult(name, True, await check(settings))
    except XByteError as error:
        return CheckResult(name, False, str(error))
    except OSError as error:
        return CheckResult(name, False, error.strerror or "the system refused")


async def _payee(settings: Settings) -> str:
    if not is_address(settings.pay_to):
        raise XByteError("no payee: set XBYTE_PAY_TO to the address that is to be paid")
    return f"payments go to {settings.pay_to}"


async def _networks(settings: Settings) -> str:
    assets = accepted_assets(settings)
    return ", ".join(f"{asset.symbol} on {asset.network}" for asset in assets)


async def _port(settings: Settings) -> str:
    return await _free(settings.host, settings.port, "--port")


async def _rtmp(settings: Settings) -> str:
    said = []
    if settings.rtmp_port:
        said.append(await _free(settings.rtmp_address, settings.rtmp_port, "--rtmp-port"))
    if settings.rtmps_port:
        tls_context(settings)
        said.append(await _free(settings.rtmp_address, settings.rtmps_port, "--rtmps-port"))
    return ", ".join(said) or "switched off"


async def _free(host: str, port: int, flag: str) -> str:
    def bind() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))

    try:
        await asyncio.to_thread(bind)
    except OSError:
        raise XByteError(
            f"port {port} on {host} is taken (by a running server?); choose another with {flag}"
        ) from None
    return f"{host}:{port} is free"


async def _database(settings: Settings) -> str:
    async with open_catalog(settings) as access:
        items = await access.catalog.items()
        return f"{access.database.dialect}, {len(items)} for sale"


async def _store(settings: Settings) -> str:
    async with open_catalog(settings) as access:
        problem = await store_check(access.store)()
    if problem:
        raise XByteError(problem)
    return "takes, gives back and deletes bytes"


async def _pages(settings: Settings) -> str:
    missing = await Assets().missing()
    if missing:
        raise XByteError(
            f"{', '.join(missing)}: not built, so the pages do not work; install again where npm "
            "reaches its registry, or run python -m xbyte_live.frontend.bundle in the sources"
        )
    return "scripts and styles are there"


async def _chain(settings: Settings) -> str:
    assets = accepted_assets(settings)
    nodes = build_nodes(settings, assets)
    try:
        for asset in assets:
            await nodes[asset.network].check(asset.chain_id)
    except ChainUnavailable as error:
        raise XByteError(f"{error}; check the network, or set rpc_urls=NETWORK=URL") from None
    finally:
        for node in nodes.values():
            await node.close()
    return ", ".join(f"{network} answers" for network in nodes)


async def _facilitator(settings: Settings) -> str:
    nodes = build_nodes(settings, accepted_assets(settings))
    facilitator = build_facilitator(settings, nodes)
    try:
        await facilitator.check()
    finally:
        await facilitator.close()
    if settings.facilitators:
        return f"{len(settings.facilitators)} set, the first that answers is used"
    return "our own; the gas key has coins"


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("payee", _payee),
    ("networks", _networks),
    ("port", _port),
    ("rtmp", _rtmp),
    ("database", _database),
    ("store", _store),
    ("pages", _pages),
    ("chain", _chain),
    ("facilitator", _facilitator),
)
