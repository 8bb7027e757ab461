"""The Distiller, ensembles of teachers, populations of students."""
