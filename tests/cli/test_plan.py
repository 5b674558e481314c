import dataclasses

import pytest

from jxai.cli.fewshot.configs import TABLES
from jxai.cli.fewshot.configs.systems import plain_and_guided
from jxai.cli.fewshot.plan import CORES, PICTURES_PER_CORE, plan
from jxai.cli.fewshot.reproduce import Options, jobs


@pytest.mark.slow
def test_a_plan_names_work_command_and_published_numbers(tiny):
    systems = plain_and_guided("prototype", dataclasses.replace(tiny, head="prototype", steps=10**9))
    table = dataclasses.replace(
        TABLES["letters-quick"](), systems=systems, published={"prototype": {5: {"hebrew": "50.00"}}}
    )
    chosen = list(jobs(table, Options(table="letters-quick", seeds=(0, 1))))
    rows = [line.split(" | ") for line in plan(table, chosen, "letters-quick").splitlines()[4:]]
    assert [row[0].strip("| ") for row in rows] == ["prototype"] * 2 + ["prototype-guided"] * 2
    assert [row[2] for row in rows] == ["2"] * 4
    # Pictures bound what so small a network takes: 5 ways of 5 shots and 3 queries, 10^9 times.
    hours = 10**9 * 5 * (5 + 3) / (PICTURES_PER_CORE * CORES) / 3600
    assert rows[1][6] == f"{hours:.1f}"
    assert rows[1][7] == "`jxai reproduce letters-quick --systems prototype --shots 5`"
    assert rows[1][8].strip("| ") == "hebrew 50.00"
    assert rows[0][8].strip("| ") == ""
