"""Wiring: the commands that need nothing but this machine: demo and devnet."""

from pathlib import Path

import click

from xbyte_live.cli.options import run


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("xbyte-demo"),
    show_default=True,
    help="Where the demo keeps its chain, database and media.",
)
@click.option("--port", default=8402, show_default=True, help="HTTP port.")
@click.option("--rpc-port", default=8545, show_default=True, help="Port of the local chain.")
@click.option("--rtmp-port", default=1935, show_default=True, help="Port publishers push to.")
def demo(data_dir: Path, port: int, rpc_port: int, rtmp_port: int) -> None:
    """Show the whole path here: a local chain, sample titles, a broadcast, a funded wallet."""
    from xbyte_live.cli.demo import run_demo
    from xbyte_live.runtime.logs import log_to_stderr

    log_to_stderr("warning")
    run(run_demo(data_dir, port=port, rpc_port=rpc_port, rtmp_port=rtmp_port))


@click.command()
@click.option("--rpc-port", default=8545, show_default=True, help="Port the chain answers on.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("xbyte-devnet"),
    show_default=True,
    help="Where its state is kept.",
)
@click.option("--chain-id", default=84532, show_default=True, help="EVM chain id.")
def devnet(rpc_port: int, data_dir: Path, chain_id: int) -> None:
    """Run a local chain with test money until interrupted."""
    from xbyte_live.cli.demo import run_devnet
    from xbyte_live.runtime.logs import log_to_stderr

    log_to_stderr("warning")
    run(run_devnet(data_dir, rpc_port=rpc_port, chain_id=chain_id))
