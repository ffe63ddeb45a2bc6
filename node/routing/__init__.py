"""Where objects go: the rules of the configuration, what they look at, and what follows from them."""
