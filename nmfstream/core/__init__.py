"""Mathematics: losses, penalties, update rules, kernels, solvers. Knows no files, threads or commands."""
