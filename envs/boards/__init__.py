"""Board games: k in a row on a board of m x n cells, with or without gravity (`board`), and who plays them."""
