"""What methods are built from; the README of `algorithms` has the map."""
