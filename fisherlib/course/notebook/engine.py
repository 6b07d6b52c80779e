"""papermill's engine with limits: no run waits for ever, and the cell that was stopped is named.

nbclient plays the browser for an ipywidgets `Output`: it writes to the socket on which it waits for the kernel's reply. Such
a write can swallow the wake-up that announces the reply (nbclient issue 312); then the reply lies there and nobody is told.
So the channel is asked again each second.
"""

import contextlib
import time
from queue import Empty

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets import Float

ENGINE = "fisherlib"
_OUTPUTS = 60  # seconds in which the last outputs of a cell must arrive after its reply; a busy machine needs more than 4


class Client(PapermillNotebookClient):
    """Runs the cells of one notebook; all of them together have `minutes`."""

    minutes = Float()

    def __init__(self, manager, **options):
        super().__init__(manager, timeout_func=lambda cell: self.left(), on_notebook_start=self._ready, **options)

    def left(self) -> float:
        """Seconds of the run that are left: the limit of the next cell. At least one, since 0 would mean for ever."""
        return max(1.0, self._until - time.monotonic())

    def _ready(self, notebook) -> None:
        self._until = time.monotonic() + 60 * self.minutes
        channel = self.kc.shell_channel
        ask = channel.get_msg

        async def get_msg(timeout: float | None = None):
            end = float("inf") if timeout is None else time.monotonic() + timeout
            while (left := end - time.monotonic()) > 1:
                with contextlib.suppress(Empty):
                    return await ask(timeout=1)
            return await ask(timeout=max(0, left))

        channel.get_msg = get_msg

    def execute_cell(self, cell, cell_index, **options):
        """Raises `TimeoutError` when the time of the run is up, `RuntimeError` when the kernel died: both name the cell."""
        began = time.monotonic()
        try:
            return super().execute_cell(cell, cell_index, **options)
        except (CellTimeoutError, DeadKernelError) as error:
            self.nb_man.cell_exception(cell, cell_index)
            first = next(iter(cell.source.strip().splitlines()))
            where = f"cell {self.code_cells_executed} (`{first}`)"
            after = f"{time.monotonic() - began:.0f} s"
            kind: type[Exception] = TimeoutError
            if isinstance(error, DeadKernelError):
                kind, problem = RuntimeError, f"the kernel died in {where} after {after}: was there enough memory for it?"
            elif time.monotonic() < self._until - 1:
                problem = f"the outputs of {where} did not all arrive within {_OUTPUTS} s: run it again"
            else:
                problem = (
                    f"{where} had not ended after {after}, when the {self.minutes:g} minutes of the run were over, and was "
                    "stopped: if it only needs longer, give the run more with minutes= (--minutes), or smaller parameters"
                )
        raise kind(f"expected every cell to end, but {problem}")


class Engine(NBClientEngine):
    """papermill's own engine with the client above. `minutes`: for all cells together; `start_timeout`: of the kernel."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man, kernel_name, *, minutes: int | float, start_timeout: int, extra_arguments=(), **_
    ):
        Client(
            nb_man,
            kernel_name=kernel_name,
            minutes=minutes,
            startup_timeout=start_timeout,
            iopub_timeout=_OUTPUTS,
            timeout=start_timeout,  # of what is no cell: the kernel's last answer, who it is
            extra_arguments=list(extra_arguments),
        ).execute()


papermill_engines.register(ENGINE, Engine)
