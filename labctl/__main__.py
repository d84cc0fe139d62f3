"""`labctl` and `python -m labctl`. The version is answered before anything heavy is imported."""

import sys


def main() -> None:
    """The console script."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from labctl import __version__

        sys.stdout.write(f"labctl {__version__}\n")
        return
    from labctl.cli.entry import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
