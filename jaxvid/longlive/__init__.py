"""LongLive: long videos block by block, from text that may change, with a cache of fixed size."""
