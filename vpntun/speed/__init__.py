"""Speed tests of running links between two vpntuns: who sends, who counts, and what both agree on."""
