"""Measuring what was repainted: figures, methods side by side, reports."""
