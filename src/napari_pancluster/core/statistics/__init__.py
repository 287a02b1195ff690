"""What a cluster is: how its stains look, what it touches, how much of it there is, and where."""
