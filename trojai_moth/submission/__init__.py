"""Competition submissions: the entry point of a container, its folder, the harness's rules, and the local scorer."""
