"""How a call looks: what `Outcome` draws, as text, SVG and page. Imported when it is asked for."""
