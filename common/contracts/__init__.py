"""The cloud's contracts: what a command must look like, and what is said when it does not."""
