"""Both sides' fixtures: a database of the gateway's, the trainer's tiny base model."""

from tests.gateway.conftest import database_url, databases, db, postgres_url
from tests.trainer.conftest import tiny_model

__all__ = ["database_url", "databases", "db", "postgres_url", "tiny_model"]
