"""What the tests of everything that people deploy have in common: tools, etcd, candidates, waiting."""
