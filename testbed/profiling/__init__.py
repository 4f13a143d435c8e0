"""Where the servers of a tier spend their time: sampled stacks, folded, drawn as flame graphs."""
