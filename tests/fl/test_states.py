import sqlite3

import jax.numpy as jnp
import pytest

from fl.states import ClientStates


def test_the_temporary_database_is_closed_with_its_owner():
    states = ClientStates(jnp.zeros(2))
    database = states._db
    database.execute("select * from kept")
    del states
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("select * from kept")
