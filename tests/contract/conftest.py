"""Both sides' fixtures: a database of the gateway's, the trainer's tiny base model."""

from tests.gateway.conftest import database_url, db, postgres_url
from tests.trainer.conftest import tiny_model

__all__ = ["database_url", "db", "postgres_url", "tiny_model"]
