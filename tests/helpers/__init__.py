"""What several tests share: environments with known answers, runs as processes, contracts, a Ray without processes."""
