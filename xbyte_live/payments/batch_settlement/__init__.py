"""The ``batch-settlement`` scheme on EVM: vouchers, deposits and refunds of channels."""
