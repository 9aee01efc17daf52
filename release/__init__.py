"""What is said of a release: locked dependencies, bill of materials, known advisories, a wheel anyone can rebuild."""
