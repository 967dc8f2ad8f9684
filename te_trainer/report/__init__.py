"""What a run found, for people: the closing table, `report.md`, `curves.png`, `report.html`."""
