"""What any daemon needs of the operating system: the loop, the log, child processes, accounts, state files."""
