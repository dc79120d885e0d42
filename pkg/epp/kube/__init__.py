"""Informer machinery: caches, work queues, controllers; no domain words."""
