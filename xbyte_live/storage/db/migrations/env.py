"""Adapter: runs migrations on the connection, and in the transaction, that the caller holds."""

from alembic import context

from xbyte_live.storage.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
)
with context.begin_transaction():
    context.run_migrations()
