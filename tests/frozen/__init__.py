"""A catalog and a cache as this format's first release wrote them, and what the command says of them."""
