//! Processes: fork, exec, exit.
