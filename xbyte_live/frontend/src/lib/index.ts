export { KNOWN_ASSETS } from './assets';
export { PaymentError, type Asked, type PaymentErrorCode } from './errors';
export {
  InjectedWallet,
  injectedWallets,
  type Eip1193Provider,
  type InjectedOptions,
} from './injected';
export { BurnerWallet } from './burner';
export { fetchPaid } from './fetch-paid';
export {
  capLevels,
  XByteLoader,
  xbyteLoader,
  type LevelSource,
  type LoaderOptions,
} from './loader';
export { MIB, amountFor, costPerMinute, formatAmount, parseAmount, type Rate } from './money';
export { Payer, type CloseOptions, type PayerOptions } from './payer';
export { loadPricing, type Pricing } from './pricing';
export { IndexedDbStore, MemoryStore, type ChannelStore } from './store';
export type {
  Ahead,
  Asset,
  Budget,
  Chain,
  ChannelConfig,
  ChannelView,
  Hex,
  PaidRequest,
  PaidResponse,
  PayerEvents,
  Receipt,
  Refund,
  Terms,
  TypedData,
  Waiting,
  Wallet,
} from './types';
