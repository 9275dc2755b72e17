"""netmon: the host's network interfaces, read from the kernel and told to whoever needs them."""
