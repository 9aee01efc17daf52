"""Rules that judge and change documents one by one: pure functions, the same in every engine."""
