"""A wallet as extensions are: announced by EIP-6963, asked by EIP-1193, with a real key."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2
from eth_account import Account
from eth_account.signers.local import LocalAccount
from playwright.async_api import Page

NAME = "Scripted Wallet"
REJECTED = {"code": 4001, "message": "User rejected the request."}
UNKNOWN = {"code": 4902, "message": "Unrecognized chain ID. Try adding the chain first."}
INVALID = {"code": -32602, "message": "Invalid params"}

_PROVIDER = """
(() => {
  const listeners = {};
  const provider = {
    async request({ method, params }) {
      const answer = await window.__wallet(method, params ?? []);
      if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error);
      if (answer.emit) for (const [name, value] of answer.emit)
        for (const listener of listeners[name] ?? []) listener(value);
      return answer.result;
    },
    on(name, listener) { (listeners[name] ??= []).push(listener); return provider; },
    removeListener(name, listener) {
      listeners[name] = (listeners[name] ?? []).filter((other) => other !== listener);
      return provider;
    },
  };
  window.__emit = (name, value) => { for (const l of listeners[name] ?? []) l(value); };
  const info = { uuid: crypto.randomUUID?.() ?? '350670db-19fa-4704-a166-e52e178b59d2',
    name: 'Scripted Wallet', rdns: 'example.scripted', icon:
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'/%3E" };
  const announce = () => dispatchEvent(new CustomEvent('eip6963:announceProvider',
    { detail: Object.freeze({ info: Object.freeze(info), provider }) }));
  addEventListener('eip6963:requestProvider', announce);
  announce();
})();
"""


@dataclass
class ScriptedWallet:
    """What a person would do with it is set beforehand; ``asked`` is what it was asked for."""

    rpc_url: str
    chain_id: int
    account: LocalAccount = field(default_factory=Account.create)
    rejects: set[str] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)  # networks it does not know yet, by chain id
    added: list[dict[str, Any]] = field(default_factory=list)
    open: bool = False  # to this page
    asked: list[str] = field(default_factory=list)

    async def join(self, page: Page) -> None:
        """Be there in every document of a page."""
        await page.expose_function("__wallet", self._answer)
        await page.add_init_script(_PROVIDER)

    async def switch(self, page: Page, chain_id: int) -> None:
        """The person chooses another network in the wallet."""
        self.chain_id = chain_id
        await page.evaluate("(id) => window.__emit('chainChanged', id)", hex(chain_id))

    async def _answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        self.asked.append(method)
        if method in self.rejects:
            return {"error": REJECTED}
        match method:
            case "eth_requestAccounts":
                self.open = True
                return {"result": [self.account.address]}
            case "eth_accounts":
                return {"result": [self.account.address] if self.open else []}
            case "eth_chainId":
                return {"result": hex(self.chain_id)}
            case "eth_signTypedData_v4":
                return {"result": self._sign(params)}
            case "wallet_switchEthereumChain":
                return self._switch(int(params[0]["chainId"], 16))
            case "wallet_addEthereumChain":
                return self._add(params[0])
        async with httpx2.AsyncClient() as http:
            asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            answer: dict[str, Any] = (await http.post(self.rpc_url, json=asked)).json()
        return {key: answer[key] for key in ("result", "error") if key in answer}

    def _switch(self, chain_id: int) -> dict[str, Any]:
        if chain_id in self.unknown:
            return {"error": UNKNOWN}
        self.chain_id = chain_id
        return {"result": None, "emit": [["chainChanged", hex(chain_id)]]}

    def _add(self, chain: dict[str, Any]) -> dict[str, Any]:
        """As EIP-3085 has it; that it is switched to, too, is left to another request."""
        currency = chain.get("nativeCurrency", {})
        if not (chain.get("rpcUrls") and chain.get("chainName") and currency.get("symbol")):
            return {"error": INVALID}
        self.added.append(chain)
        self.unknown.discard(int(chain["chainId"], 16))
        return {"result": None}

    def _sign(self, params: list[Any]) -> str:
        address, text = params
        assert address.lower() == self.account.address.lower()
        document = text if isinstance(text, dict) else json.loads(text)
        if int(document["domain"]["chainId"]) != self.chain_id:
            raise ValueError("wallets sign for the network they are on")
        return "0x" + self.account.sign_typed_data(full_message=document).signature.hex()
