import type { Asset, Offer } from './types';

const usdc = (network: string, address: Asset['address'], name = 'USD Coin'): Asset => ({
  network,
  address,
  name,
  version: '2',
  decimals: 6,
  symbol: 'USDC',
});

/** The tokens that are paid in unless the page allows others: Circle's USDC. */
export const KNOWN_ASSETS: readonly Asset[] = [
  usdc('eip155:8453', '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'),
  usdc('eip155:84532', '0x036CbD53842c5426634e7929541eC2318f3dCF7e', 'USDC'),
  usdc('eip155:43114', '0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E'),
  usdc('eip155:43113', '0x5425890298aed601595a70AB815c96711a31Bc65'),
];

/** The asset an offer asks for under its right EIP-712 domain, if it is one of `assets`. */
export function assetOf(offer: Offer, assets: readonly Asset[]): Asset | undefined {
  return assets.find(
    (asset) =>
      asset.network === offer.network &&
      asset.address.toLowerCase() === offer.asset.toLowerCase() &&
      asset.name === offer.extra.name &&
      asset.version === offer.extra.version,
  );
}
