"""`accelerate launch -m te_trainer COMMAND` is `te-trainer COMMAND` in several processes."""

import sys

from te_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
