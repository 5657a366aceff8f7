"""From the ledger to the chain: transfers, claims, payouts, refunds, and the watcher."""
