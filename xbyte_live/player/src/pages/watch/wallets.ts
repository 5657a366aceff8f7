import { BurnerWallet } from '../../lib/burner';
import { PaymentError } from '../../lib/errors';
import { injectedWallets } from '../../lib/injected';
import type { Wallet } from '../../lib/types';
import type { Network } from './server';

/** A wallet one may choose. */
export interface Choice {
  id: string;
  name: string;
  about: string;
  open(): Promise<Wallet>;
}

/** The wallets at hand: the test wallet where test money is handed out, then those installed. */
export async function choices(network: Network): Promise<Choice[]> {
  const found: Choice[] = [];
  if (network.faucet_url) {
    found.push({
      id: 'burner',
      name: 'Test wallet',
      about: 'Made in this browser and filled with free test money',
      open: async () => BurnerWallet.load(),
    });
  }
  for (const [index, wallet] of (await injectedWallets()).entries()) {
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
    await wallet.switchChain(network.chain_id).catch(() => undefined);
    if ((await wallet.chainId()) !== network.chain_id) {
      throw new PaymentError('wrong-network', '', true);
    }
  }
  if (wallet instanceof BurnerWallet && network.faucet_url) {
    if ((await balanceOf(wallet, network)) < deposit) await wallet.fund(network.faucet_url);
  }
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
