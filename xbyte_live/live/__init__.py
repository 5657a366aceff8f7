"""Publishers, their feeds, pulled sources and webhooks."""
