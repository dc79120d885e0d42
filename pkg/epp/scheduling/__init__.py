"""Pure decision code: a table in, a decision out; no await, no clock, no I/O."""
