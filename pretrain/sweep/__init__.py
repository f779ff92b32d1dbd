"""Many runs from one command: expanded, composed, named and checked before the first of them starts, then started by a launcher."""
