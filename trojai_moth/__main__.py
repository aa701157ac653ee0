"""``python -m trojai_moth`` is ``trojai-moth``."""

from .cli.main import main

if __name__ == "__main__":
    main(prog_name="trojai-moth")
