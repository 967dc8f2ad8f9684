"""What a run found, for people: the closing table, `report.md`, `curves.png`, `report.html`."""

from te_trainer.report.page import PAGE, write_page
from te_trainer.report.summary import write_report
from te_trainer.report.table import Table
from te_trainer.report.tables import print_contrastive_results, print_results

__all__ = ["PAGE", "Table", "print_contrastive_results", "print_results", "write_page", "write_report"]
