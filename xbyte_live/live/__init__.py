"""Publishers, their feeds, and who is told of them."""
