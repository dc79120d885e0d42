"""The program: the only package that constructs concrete classes."""
