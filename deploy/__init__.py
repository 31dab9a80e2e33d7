"""Where specmill runs: resources, jobs, clusters, and the cards that ship."""
