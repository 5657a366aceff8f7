"""The schema's history, as Alembic runs it; packaged with the code it belongs to."""
