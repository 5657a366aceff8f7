"""The SDK and the scripts of the pages, in TypeScript, and what bundles them."""
