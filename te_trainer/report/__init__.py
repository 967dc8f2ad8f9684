"""What a run found, for people: the closing table, `report.md`, `curves.png`, `report.html`."""

from te_trainer.report.page import PAGE, write_page
from te_trainer.report.summary import write_report
from te_trainer.report.tables import lay_out, markdown, print_table, remarks, rows, show, what_chose

__all__ = [
    "PAGE",
    "lay_out",
    "markdown",
    "print_table",
    "remarks",
    "rows",
    "show",
    "what_chose",
    "write_page",
    "write_report",
]
