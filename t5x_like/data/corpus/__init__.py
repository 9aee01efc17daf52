"""From crawled pages to a clean corpus: recipes, and the engine that follows one."""
