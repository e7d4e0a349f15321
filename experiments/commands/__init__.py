"""What the commands of `trajclust` do; `cli` only parses them."""
