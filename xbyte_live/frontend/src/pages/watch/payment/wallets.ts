import { BurnerWallet } from '../../../lib/wallets/burner';
import { PaymentError } from '../../../lib/x402/errors';
import { injectedWallets } from '../../../lib/wallets/injected';
import type { Chain, Wallet } from '../../../lib/wallets/wallet';
import type { Network } from '../server';

/** A wallet one may choose. */
export interface WalletChoice {
  id: string;
  name: string;
  about: string;
  open(): Promise<Wallet>;
}

/** The wallets at hand: the test wallet where test money is handed out, then those installed. */
export async function choices(network: Network): Promise<WalletChoice[]> {
  const found: WalletChoice[] = [];
  if (network.faucet_url) {
    found.push({
      id: 'burner',
      name: 'Test wallet',
      about: 'Made in this browser and filled with free test money',
      open: async () => BurnerWallet.load(),
    });
  }
  const chains = [chainOf(network)];
  for (const [index, wallet] of (await injectedWallets({ chains })).entries()) {
    found.push({
      id: `injected-${index}`,
      name: wallet.name,
      about: `Asks you to sign once, on ${network.name}`,
      open: async () => Promise.resolve(wallet),
    });
  }
  return found;
}

/** Make a wallet ready to deposit: unlocked, on the right network, a test wallet filled. */
export async function ready(wallet: Wallet, network: Network, deposit: bigint): Promise<void> {
  await wallet.address();
  if ((await wallet.chainId()) !== network.chain_id) {
    const failure = await wallet.switchChain(network.chain_id).catch((error: unknown) => error);
    if ((await wallet.chainId()) !== network.chain_id) {
      if (isUnknown(failure)) throw new PaymentError('unknown-network', byHand(network), true);
      throw new PaymentError('wrong-network', '', true);
    }
  }
  if (wallet instanceof BurnerWallet && network.faucet_url) {
    if ((await balanceOf(wallet, network)) < deposit) await wallet.fund(network.faucet_url);
  }
}

/** Whether it is that a wallet does not know the network. */
export function isUnknown(error: unknown): error is PaymentError {
  return error instanceof PaymentError && error.code === 'unknown-network';
}

/** What to add to a wallet by hand that does not know the network. */
export function byHand({ name, chain_id }: Network): string {
  return `Add ${name} (chain id ${chain_id}) to it by hand, or choose another wallet.`;
}

/** A network as wallets are told of it; only of test networks is there a node for everybody. */
function chainOf({ chain_id, name, rpc_url }: Network): Chain {
  return { id: chain_id, name, rpcUrls: rpc_url ? [rpc_url] : [] };
}

/** What a wallet holds of the network's money, in atomic units. */
export async function balanceOf(wallet: Wallet, network: Network): Promise<bigint> {
  return wallet.balance(network.asset, network.rpc_url ?? undefined);
}

/** Ask the faucet for test money for any wallet. */
export async function fill(wallet: Wallet, network: Network): Promise<void> {
  if (!network.faucet_url) return;
  const answer = await fetch(network.faucet_url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ address: await wallet.address() }),
  });
  if (!answer.ok) throw new PaymentError('insufficient-funds', '', true, answer.status);
}
