"""A door: committed protocols say `python -m fisherlib.notebook`. The room is `fisherlib.course.notebook`."""

import sys

from fisherlib.course import notebook

if __name__ == "__main__":
    from fisherlib.course.notebook.__main__ import main

    main()
sys.modules[__name__] = notebook  # `import fisherlib.notebook` is the room itself
