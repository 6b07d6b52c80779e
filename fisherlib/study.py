"""A door: committed protocols say `python -m fisherlib.study`. The room is `fisherlib.course.study`."""

import sys

from fisherlib.course import study

if __name__ == "__main__":
    from fisherlib.course.study.__main__ import main

    main()
sys.modules[__name__] = study  # `import fisherlib.study` is the room itself
sys.modules[f"{__name__}.related"] = study.methods  # where notebook 07 looks for its arms
