"""The compiled columns of messages and waits are those that the program defines, for any rows of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay.engine.columns import Columns

from .programs import programs


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_columns_of_any_rows_are_the_programs(data, gpus):
    program = data.draw(programs(gpus))
    columns = Columns(program)
    for rows, made, expected in (
        (program.messages, columns.messages, program.message_rows),
        (program.waits, columns.waits, program.wait_rows),
    ):
        low = data.draw(st.integers(0, rows))
        high = data.draw(st.integers(low, rows))
        whole = expected()
        for name, column in made(low, high).items():
            np.testing.assert_array_equal(column, whole[name][low:high], err_msg=name)
