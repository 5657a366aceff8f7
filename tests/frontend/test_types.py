"""The library's types as a server hands them out, and a small program that is held to them."""

import json
import shutil
import subprocess
from pathlib import Path

import httpx2
from starlette.applications import Starlette
from starlette.routing import Route

from tests.support.chain import serving
from xbyte_live.devnet import npm
from xbyte_live.frontend.bundle import FRONTEND, build
from xbyte_live.web.pages.assets import Assets

URL = "https://media.example/static/xbyte-hls.js"
PROGRAM = """\
import Hls from 'hls.js';
import {
  Payer, capLevels, injectedWallets, loadPricing, xbyteLoader,
  type PayerEvents, type Receipt,
} from 'https://media.example/static/xbyte-hls.js';

const [wallet] = await injectedWallets();
const payer = new Payer({ wallet, budget: { total: 2_000_000n, perMinute: 50_000n } });
payer.addEventListener('spend', ({ detail }) => { show(detail.total, detail.url); });
const told = ({ detail }: CustomEvent<PayerEvents['cap']>): void => { show(detail.cap); };
payer.addEventListener('cap', told);
const hls = new Hls({ fLoader: xbyteLoader(payer) });
const { perMb } = await loadPricing('https://media.example/hls/film/pricing.json');
const stop: () => void = capLevels(hls, payer, perMb);
const last: Receipt | undefined = payer.receipts.at(-1);
show(last?.amount ?? 0n);
stop();

// @ts-expect-error money is a bigint
payer.budget = { total: 5 };
// @ts-expect-error that is no wallet
payer.wallet = { kind: 'injected', name: 'nobody' };
// @ts-expect-error what was charged is read, not written
payer.spent = 0n;

function show(amount: bigint, url = ''): void {
  document.title = `${amount} ${url}`;
}
"""
OPTIONS = {
    "target": "ES2022", "module": "ESNext", "moduleResolution": "bundler", "strict": True,
    "noEmit": True, "lib": ["ES2023", "DOM", "DOM.Iterable"], "types": [],
    "paths": {URL: ["./xbyte-hls.d.ts"]},
}  # fmt: skip


def test_a_program_is_checked_against_the_types_a_server_hands_out(tmp_path: Path) -> None:
    build()  # nothing where it is up to date
    with serving(Starlette(routes=[Route("/static/{name}", Assets().answer)])) as url:
        answer = httpx2.get(f"{url}/static/xbyte-hls.d.ts")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"

    (tmp_path / "xbyte-hls.d.ts").write_text(answer.text)
    (tmp_path / "program.ts").write_text(PROGRAM)
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS}))
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    modules = npm.install("frontend", lock, dev=False)
    shutil.copytree(modules / "hls.js", tmp_path / "node_modules" / "hls.js")
    checked = subprocess.run(
        (npm.node_tools().node, modules / "typescript" / "bin" / "tsc", "-p", tmp_path),
        capture_output=True,
        text=True,
    )
    assert (checked.stdout, checked.returncode) == ("", 0)


def test_the_readme_says_how_to_use_them() -> None:
    readme = (FRONTEND / "README.md").read_text("utf-8")
    assert f'"{URL}": ["./types/xbyte-hls.d.ts"]' in readme
