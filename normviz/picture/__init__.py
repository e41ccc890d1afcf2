"""How it looks: scenes (pure geometry) and the ways of showing them (SVG, matplotlib, widgets)."""
