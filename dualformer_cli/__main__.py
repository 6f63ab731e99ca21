"""Start the command line for `python -m dualformer_cli` and for torchrun."""

from dualformer_cli.app import main

if __name__ == "__main__":
    main()
