"""`python -m nuwa_lip ...` is `nuwa-lip ...`."""

from nuwa_lip.cli import main

if __name__ == "__main__":
    main()
