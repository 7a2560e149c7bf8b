"""A Ray cluster from the outside: checks that it can run a sweep, and jobs that run one there."""
