"""Files that go next to an exported network, with their constants filled in; they import nothing of ours."""
