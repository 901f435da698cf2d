"""A run: its folder, its checks, how it is put together, trained, saved and continued."""
