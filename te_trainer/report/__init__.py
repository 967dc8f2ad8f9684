"""What a run found, for people: the closing table, `report.md`, `curves.png`, `report.html`."""

from te_trainer.report.page import write_page
from te_trainer.report.run_tables import print_contrastive_results, print_results
from te_trainer.report.summary import write_report
from te_trainer.report.table_formats import Table

__all__ = ["Table", "print_contrastive_results", "print_results", "write_page", "write_report"]
