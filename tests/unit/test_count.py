"""What `tools/count.py` counts as a statement, as public and as long."""

from __future__ import annotations

from tools.count import Count, count, missed

MODULE = '''"""A module."""

import os  # 1


class Public:  # 2
    """A class."""

    size = 3  # 3
    """Of it."""

    def bare(self):  # 4
        return os.name  # 5

    def __len__(self):  # 6
        return 0  # 7

    def _own(self):  # 8
        def inner():  # 9
            pass  # 10


async def told():  # 11
    """A function."""
    if os.name: print()  # 12 and 13
'''


def test_statements_and_public_names() -> None:
    found = Count()
    found.add("a.py", MODULE)
    assert found.statements == 13
    assert (found.public, found.bare) == (4, ["a.py:6 Public:12 bare"])
    assert (found.functions, found.long, found.files) == (5, [], [(25, "a.py")])


def test_extras_are_apart_wherever_they_were() -> None:
    found = count(
        (f"src/reg2rg/{name}", "x = 1\n")
        for name in ("data/batch.py", "data/phantom/body.py", "extras/tiny_llm/build.py", "cli/lm.py", "cli/data.py")
    )
    assert (found["package"].statements, found["extras"].statements) == (2, 3)


def test_limits_name_what_misses_them() -> None:
    lines = "\n".join(["def long():", *["    pass"] * 50, ""])
    whole = "\n".join(["x = 1"] * 434)
    mistakes = list(missed(count(iter([("a.py", lines), ("b.py", f'"""Doc."""\n{whole}')]))))
    assert [text.partition(":")[0] for text in mistakes] == ["public docstrings", "functions over 50 lines", "b.py"]
    assert "a.py:1 long (51)" in mistakes[1]
    assert "435 lines, expected at most 433" in mistakes[2]
