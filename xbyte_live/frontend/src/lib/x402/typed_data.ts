import { encodeAbiParameters, hashTypedData, keccak256 } from 'viem/utils';
import type { ChannelConfig, Hex, TypedData } from './types';

/** Where the contracts are on every chain (x402 `scheme_batch_settlement_evm`). */
export const CONTRACT: Hex = '0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003';
export const COLLECTOR: Hex = '0x4020806089470a89826cB9fB1f4059150b550004';

const CHANNEL_TYPES = {
  ChannelConfig: [
    { name: 'payer', type: 'address' },
    { name: 'payerAuthorizer', type: 'address' },
    { name: 'receiver', type: 'address' },
    { name: 'receiverAuthorizer', type: 'address' },
    { name: 'token', type: 'address' },
    { name: 'withdrawDelay', type: 'uint40' },
    { name: 'salt', type: 'bytes32' },
  ],
};
const VOUCHER_TYPES = {
  Voucher: [
    { name: 'channelId', type: 'bytes32' },
    { name: 'maxClaimableAmount', type: 'uint128' },
  ],
};
const DEPOSIT_TYPES = {
  ReceiveWithAuthorization: [
    { name: 'from', type: 'address' },
    { name: 'to', type: 'address' },
    { name: 'value', type: 'uint256' },
    { name: 'validAfter', type: 'uint256' },
    { name: 'validBefore', type: 'uint256' },
    { name: 'nonce', type: 'bytes32' },
  ],
};

/** The id of a channel: the EIP-712 digest of its configuration. */
export function channelIdOf(config: ChannelConfig, chainId: number): Hex {
  return hashOf({
    domain: contractDomain(chainId),
    types: CHANNEL_TYPES,
    primaryType: 'ChannelConfig',
    message: { ...config },
  });
}

/** The digest that a session key signs for a voucher. */
export function voucherDigest(channelId: Hex, ceiling: bigint, chainId: number): Hex {
  return hashOf({
    domain: contractDomain(chainId),
    types: VOUCHER_TYPES,
    primaryType: 'Voucher',
    message: { channelId, maxClaimableAmount: ceiling },
  });
}

/** The typed data that a wallet signs for a deposit (EIP-3009 `ReceiveWithAuthorization`). */
export function depositData(
  asset: { address: Hex; name: string; version: string; chainId: number },
  order: { payer: Hex; channelId: Hex; amount: bigint; validBefore: number; salt: Hex },
): TypedData {
  return {
    domain: {
      name: asset.name,
      version: asset.version,
      chainId: asset.chainId,
      verifyingContract: asset.address,
    },
    types: DEPOSIT_TYPES,
    primaryType: 'ReceiveWithAuthorization',
    message: {
      from: order.payer,
      to: COLLECTOR,
      value: order.amount,
      validAfter: 0n,
      validBefore: BigInt(order.validBefore),
      nonce: depositNonce(order.channelId, order.salt),
    },
  };
}

/** The EIP-712 digest of typed data. */
export function hashOf(data: TypedData): Hex {
  return hashTypedData(data as Parameters<typeof hashTypedData>[0]);
}

/** `eip155:8453` to 8453; throws `RangeError` for what is no EVM network. */
export function chainIdOf(network: string): number {
  const found = /^eip155:([1-9]\d{0,14})$/.exec(network);
  if (!found) throw new RangeError(`${network.slice(0, 40)} is no EVM network`);
  return Number(found[1]);
}

/** The nonce of a deposit's authorization (EIP-3009). */
export function depositNonce(channelId: Hex, salt: Hex): Hex {
  const types = [{ type: 'bytes32' }, { type: 'uint256' }] as const;
  return keccak256(encodeAbiParameters(types, [channelId, BigInt(salt)]));
}

function contractDomain(chainId: number): TypedData['domain'] {
  return { name: 'x402 Batch Settlement', version: '1', chainId, verifyingContract: CONTRACT };
}
