"""The lean runtime: bundle reader, backends, entropy core, container and the `dlf` command. It needs no torch."""
