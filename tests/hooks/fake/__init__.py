"""One fake cloud of ours for all providers: what it holds, and how it can fail, is the same for each of them."""
