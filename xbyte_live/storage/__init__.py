"""Where rows and bytes are kept: the database, the blob store, leases."""
