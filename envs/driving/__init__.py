"""CarRacing, drawn fast: Gymnasium's own environment with its picture drawn by machine code, bit for bit."""
