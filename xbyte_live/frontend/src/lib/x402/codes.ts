const PREFIX = 'invalid_batch_settlement_evm_';

/** Error codes of the scheme (x402 `scheme_batch_settlement_evm`). */
export const AMOUNT_MISMATCH = `${PREFIX}cumulative_amount_mismatch`;
export const BELOW_CLAIMED = `${PREFIX}cumulative_below_claimed`;
export const EXCEEDS_BALANCE = `${PREFIX}cumulative_exceeds_balance`;
export const CHANNEL_NOT_FOUND = `${PREFIX}channel_not_found`;
export const DEPOSIT_BELOW_MINIMUM = `${PREFIX}deposit_below_min_deposit`;
export const DEPOSIT_EXPIRED = `${PREFIX}payload_authorization_valid_before`;
export const BUSY = `${PREFIX}channel_busy`;
export const REFUND_NOTHING = `${PREFIX}refund_no_balance`;
