"""How a call looks: what `Outcome` draws, as text, SVG and page. Imported at first use."""
