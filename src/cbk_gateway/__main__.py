"""`python -m cbk_gateway` is the command `cbk-gateway`."""

from cbk_gateway.cli import main

if __name__ == "__main__":
    main()
