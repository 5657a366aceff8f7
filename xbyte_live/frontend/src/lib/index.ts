export { KNOWN_ASSETS } from './x402/assets';
export { PaymentError, type Asked, type PaymentErrorCode } from './x402/errors';
export {
  InjectedWallet,
  injectedWallets,
  type Eip1193Provider,
  type InjectedOptions,
} from './wallets/injected';
export { BurnerWallet } from './wallets/burner';
export { fetchPaid } from './payer/fetch_paid';
export { capLevels, type LevelSource } from './hls/levels';
export { XByteLoader, xbyteLoader, type LoaderOptions } from './hls/loader';
export { MIB, amountFor, costPerMinute, formatAmount, parseAmount, type Rate } from './money';
export { Payer, type CloseOptions, type PayerOptions } from './payer/payer';
export { loadPricing, type Pricing } from './payer/pricing';
export { IndexedDbStore, MemoryStore, type ChannelStore } from './channel/store';
export type { ChannelView, Receipt, Refund } from './channel/types';
export type { Ahead, Budget, PaidRequest, PaidResponse, PayerEvents, Waiting } from './payer/types';
export type { Chain, Wallet } from './wallets/wallet';
export type { Asset, ChannelConfig, Hex, ChannelOffer as Terms, TypedData } from './x402/types';
