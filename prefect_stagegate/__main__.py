"""`python -m prefect_stagegate`: the `stagegate` command, where its script is not on the path."""

from prefect_stagegate.cli import main

if __name__ == "__main__":
    main()
