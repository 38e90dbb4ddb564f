"""The engines that evaluate a table's suite, and the values of single files that they merge."""
