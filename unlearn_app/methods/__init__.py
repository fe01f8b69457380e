"""What forgetting means: the papers, one file per idea."""
