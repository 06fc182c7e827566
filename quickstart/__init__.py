"""The quickstart's own model, data and metrics: controlled sentiment in small."""
