"""From the ledger to the chain: transfers, claims, settles, refunds, and the watcher."""
