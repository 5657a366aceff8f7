"""Ethereum: typed data, authorizations, keys, nodes, transactions and contracts."""
