"""Inner loops. Each family has a light module with its numpy twin, which serves small inputs (importing numba and
loading compiled code costs more than they do) and is the reference in tests, and a compiled module beside it
(``*_compiled``), imported at the first large input. Which of the two runs follows from shapes alone.
"""
