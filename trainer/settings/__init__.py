"""What a run can be told, a page for each part of it. Plain values, checked once; no file, no environment, no torch."""
